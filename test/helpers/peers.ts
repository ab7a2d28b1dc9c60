// Servers of other protocols, as small as a log-in needs them, over real sockets. Each answers a
// wrong log-in with everything that it was sent.
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, TLSSocket } from 'node:tls';
import type { TestCertificate } from './certificate.ts';

export interface Login {
  readonly username?: string;
  readonly password: string;
}
interface PeerOptions {
  readonly login: Login;
  /** What TLS is spoken with, at once or when asked. */
  readonly certificate?: TestCertificate;
  readonly tls?: 'atOnce' | 'later' | 'none';
}
/** What a peer was sent, line by line, with the transport that it came over. */
export interface Heard {
  readonly lines: { readonly text: string; readonly isTls: boolean }[];
}
type Conversation = (
  said: string,
  reply: (text: string) => void,
  state: Map<string, unknown>,
) => void;

/**
 * A server that holds a conversation in lines with each caller; `STARTTLS` is answered by `turn`.
 */
function peer(
  { certificate, tls = 'none' }: PeerOptions,
  greeting: string,
  talk: Conversation,
  isTurn: (line: string) => string | undefined,
): { server: Server; heard: Heard } {
  const heard: Heard = { lines: [] };
  const serve = (socket: Socket): void => {
    const state = new Map<string, unknown>([['isTls', socket instanceof TLSSocket]]);
    let pending = '';
    const onData = (chunk: Buffer): void => {
      pending += chunk.toString('latin1');
      for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
        const line = pending.slice(0, end).replace(/\r$/, '');
        pending = pending.slice(end + 1);
        heard.lines.push({ text: line, isTls: state.get('isTls') === true });
        const answer = tls === 'later' && certificate !== undefined ? isTurn(line) : undefined;
        if (answer === undefined || certificate === undefined) {
          talk(line, (text) => socket.write(text, 'latin1'), state);
          continue;
        }
        socket.off('data', onData).write(answer);
        const secured = new TLSSocket(socket, {
          isServer: true,
          cert: certificate.certificate,
          key: certificate.key,
        });
        secured.on('error', () => socket.destroy());
        serve(secured);
        return;
      }
    };
    socket.on('error', () => socket.destroy()).on('data', onData);
    if (!(socket instanceof TLSSocket) || tls === 'atOnce') socket.write(greeting);
  };
  const server =
    tls === 'atOnce' && certificate !== undefined
      ? createTlsServer({ cert: certificate.certificate, key: certificate.key }, serve)
      : createServer(serve);
  server.on('tlsClientError', () => undefined);
  return { server, heard };
}

/** Speaks SMTP: EHLO, STARTTLS, AUTH PLAIN, QUIT. */
export const smtpPeer = (options: PeerOptions): { server: Server; heard: Heard } =>
  peer(
    options,
    '220 mail.test ESMTP\r\n',
    (line, reply, state) => {
      const [verb = '', mechanism = '', initial = ''] = line.split(' ');
      const offersTls = options.tls === 'later' && state.get('isTls') !== true;
      switch (verb.toUpperCase()) {
        case 'EHLO':
          return reply(`250-mail.test\r\n${offersTls ? '250-STARTTLS\r\n' : ''}250 AUTH PLAIN\r\n`);
        case 'AUTH': {
          const [, username = '', password = ''] = Buffer.from(initial, 'base64')
            .toString()
            .split('\0');
          const isGood =
            mechanism === 'PLAIN' &&
            username === options.login.username &&
            password === options.login.password;
          return reply(
            isGood
              ? '235 2.7.0 welcome\r\n'
              : `535 5.7.8 no: ${username} ${password} ${initial}\r\n`,
          );
        }
        case 'QUIT':
          return reply('221 bye\r\n');
        default:
          return reply('502 what\r\n');
      }
    },
    (line) => (/^STARTTLS$/i.test(line) ? '220 go ahead\r\n' : undefined),
  );

/** Speaks IMAP: STARTTLS, LOGIN, AUTHENTICATE PLAIN, LOGOUT. */
export const imapPeer = (options: PeerOptions): { server: Server; heard: Heard } =>
  peer(
    options,
    '* OK ready\r\n',
    (line, reply, state) => {
      const wanted = Buffer.from(
        `\0${options.login.username ?? ''}\0${options.login.password}`,
      ).toString('base64');
      const pending = state.get('authenticating');
      if (typeof pending === 'string') {
        state.delete('authenticating');
        return reply(
          line === wanted
            ? `${pending} OK in\r\n`
            : `${pending} NO [AUTHENTICATIONFAILED] ${line}\r\n`,
        );
      }
      const [, tag = '', verb = '', rest = ''] = /^(\S+) (\S+) ?(.*)$/.exec(line) ?? [];
      switch (verb.toUpperCase()) {
        case 'LOGIN': {
          const quoted = (text = ''): string => `"${text.replaceAll(/["\\]/g, '\\$&')}"`;
          const isGood =
            rest === `${quoted(options.login.username)} ${quoted(options.login.password)}`;
          return reply(
            `* CAPABILITY IMAP4rev1\r\n* an untagged line\r\n${isGood ? `${tag} OK in` : `${tag} NO no: ${rest}`}\r\n`,
          );
        }
        case 'AUTHENTICATE':
          state.set('authenticating', tag);
          return reply('+ \r\n');
        case 'LOGOUT':
          return reply(`* BYE\r\n${tag} OK bye\r\n`);
        default:
          return reply(`${tag} BAD what\r\n`);
      }
    },
    (line) => {
      const [tag, verb] = line.split(' ');
      return verb?.toUpperCase() === 'STARTTLS' ? `${tag ?? ''} OK begin\r\n` : undefined;
    },
  );

/** Speaks RESP: AUTH, SELECT, PING. */
export const redisPeer = (options: PeerOptions): { server: Server; heard: Heard } =>
  peer(
    options,
    '',
    (line, reply, state) => {
      const words = (state.get('words') ?? []) as string[];
      if (/^\*\d+$/.test(line)) {
        state.set('words', [line]);
        return;
      }
      words.push(line);
      state.set('words', words);
      if (words.length < 1 + 2 * Number(words[0]?.slice(1))) return;
      const [verb, argument] = [words[2], words[4]];
      const isIn = state.get('in') === true || options.login.password === '';
      if (verb === 'AUTH') {
        const isGood = argument === Buffer.from(options.login.password).toString('latin1');
        state.set('in', isGood);
        return reply(isGood ? '+OK\r\n' : `-WRONGPASS ${argument ?? ''}\r\n`);
      }
      if (!isIn) return reply('-NOAUTH Authentication required.\r\n');
      return reply(
        verb === 'PING'
          ? '+PONG\r\n'
          : verb === 'SELECT' && argument !== '99'
            ? '+OK\r\n'
            : '-ERR what\r\n',
      );
    },
    () => undefined,
  );
