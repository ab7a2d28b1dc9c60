import { googleOAuth } from './google-oauth.ts';

export const googleSheets = googleOAuth({
  name: 'googleSheets',
  title: 'Google Sheets',
  description: 'Spreadsheets of a Google account, by OAuth 2.0.',
  scope: 'https://www.googleapis.com/auth/spreadsheets',
  baseUrl: 'https://sheets.googleapis.com',
  heym: 'google_sheets',
  n8n: 'googleSheetsOAuth2Api',
});
