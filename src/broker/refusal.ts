// Why a call does not go out. The proxy turns a reason into an answer; the reason holds nothing
// that the caller or the secret said.

/**
 * `path`, `pathPrefix`, `method`, `host`: what the caller asked for is not what the credential
 * allows. `unsupported`: no broker can carry it. `bodyTooLarge`: what has to be signed whole is too
 * long. `secretUnusable`: the stored value does not fit its place. `unscannable`: the answer came
 * in a form in which a secret cannot be looked for. `range`: so small a part of an answer would be
 * a part of a secret. `piece`: there is a part of one in the part that came. `ticket`: the body
 * holds the ticket. `handshake`, `upstreamHandshake`: what should become a WebSocket is none, on
 * this side or on that.
 */
export type RefusalReason =
  | 'path'
  | 'pathPrefix'
  | 'method'
  | 'host'
  | 'unsupported'
  | 'bodyTooLarge'
  | 'secretUnusable'
  | 'unscannable'
  | 'range'
  | 'piece'
  | 'ticket'
  | 'handshake'
  | 'upstreamHandshake';

/** A call that the broker does not pass on, or an answer that it does not pass back. */
export class BrokerRefusal extends Error {
  readonly reason: RefusalReason;
  constructor(reason: RefusalReason) {
    super(`the broker refuses: ${reason}`);
    this.name = 'BrokerRefusal';
    this.reason = reason;
  }
}
