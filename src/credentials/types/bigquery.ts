import { googleOAuth } from './google-oauth.ts';

export const bigquery = googleOAuth({
  name: 'bigquery',
  title: 'BigQuery',
  description: 'BigQuery of a Google account, by OAuth 2.0.',
  scope: 'https://www.googleapis.com/auth/bigquery',
  baseUrl: 'https://bigquery.googleapis.com',
  heym: 'bigquery',
  n8n: 'googleBigQueryOAuth2Api',
});
