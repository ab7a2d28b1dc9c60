// The door to the broker: tickets, calls and what carries them; and how a secret gets into a
// request to its destination, which tests of connections make in the same way.
export { Addresses } from './addresses.ts';
export { Calls } from './call.ts';
export { isInjectableHeader } from './headers.ts';
export { render } from './injection.ts';
export { CallLimits } from './limits.ts';
export { createBrokerListener } from './listener.ts';
export { Outcomes } from './outcomes.ts';
export { BrokerProxy } from './proxy.ts';
export { BrokerRefusal } from './refusal.ts';
export { registerBrokerTickets } from './routes.ts';
export { type BrokerParts, BrokerService } from './service.ts';
export { hostHeader, originText, targetOf, upstreamPath } from './target.ts';
export { TicketLife } from './ticket-life.ts';
export { type TicketMacFields, ticketRowMac, verifyTicketRowMac } from './tickets.ts';
export { type WebSocketTimes, webSocketTimes } from './tunnel.ts';
