// Limits, with their units. One that a caller can meet stands in openapi.yaml too.

export const bodyBytesMax = 512 * 1024;
export const secretFieldBytesMax = 64 * 1024;
export const pageItemsMax = 200;
export const pageItemsDefault = 50;
/**
 * A page of credentials or versions ends when its public fields and policies are as long as this.
 */
export const pageBytesMax = 4 * 1024 * 1024;
export const cursorLengthMax = 1024;
export const nameLengthMax = 100;
export const descriptionLengthMax = 1000;
export const labelsMax = 32;
export const labelLengthMax = 100;
export const fieldsMax = 64;
export const publicFieldLengthMax = 2048;
/** A public field that holds PEM. */
export const pemLengthMax = 32 * 1024;
/**
 * Grants of one team's credentials to one grantee, who reads all of them at each list and was not
 * asked.
 */
export const grantsBetweenMax = 1_000;
/** How long an offer of a credential to another team is open. */
export const transferDays = 7;
export const bulkItemsMax = 100;
export const leaseCredentialsMax = 100;
export const leaseSecondsMax = 300;
export const leaseSecondsDefault = 60;
export const ticketsMax = 100;
/** The longest that a policy can give tickets; what it gives without a word is shorter. */
export const ticketSecondsMax = 43_200;
export const ticketSecondsDefault = 900;
export const purposeLengthMax = 200;
export const engineKeysMax = 10;
/** As long as a head of `headerBytesMax` has room for: people are in many groups. */
export const tokenLengthMax = 16_000;
export const keyIdLengthMax = 256;
/** What lives longer speaks for engines only. */
export const personLifetimeSecondsMax = 24 * 60 * 60;
export const idempotencyKeyLengthMax = 128;
export const idempotencyHours = 24;
/** Longest URL parameter the router reads; a percent-encoded subject of 512 characters fits. */
export const paramLengthMax = 1536;
export const headerBytesMax = 16 * 1024;
export const requestTimeoutMs = 30_000;
/**
 * At the broker, where a request has no time of its own: for its headers, and for what is still
 * sent after the answer.
 */
export const headerTimeoutMs = 30_000;
export const lingerMs = 5_000;
export const brokerPathLengthMax = 16 * 1024;
/** How often connections are looked at for requests that are past their time. */
export const timeoutCheckMs = 1_000;
export const connectionTimeoutMs = 60_000;
/** For a long answer to be taken: the longest lease at half a megabit a second. */
export const answerMs = 300_000;
/** At the stop, for answers that are being made and sent: longer than any statement may take. */
export const stopGraceMs = 20_000;
