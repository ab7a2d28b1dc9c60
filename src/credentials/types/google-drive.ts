import { googleOAuth } from './google-oauth.ts';

export const googleDrive = googleOAuth({
  name: 'googleDrive',
  title: 'Google Drive',
  description: 'Files of a Google account, by OAuth 2.0.',
  scope: 'https://www.googleapis.com/auth/drive',
  baseUrl: 'https://www.googleapis.com',
  heym: 'google_drive',
  n8n: 'googleDriveOAuth2Api',
});
