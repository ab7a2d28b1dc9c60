// The door to the broker: tickets, calls and what carries them; and how a secret gets into a request
// to its destination, which tests of connections make in the same way.
export { Calls } from './call.ts';
export { render } from './injection.ts';
export { CallLimits } from './limits.ts';
export { createBrokerListener } from './listener.ts';
export { Outcomes } from './outcomes.ts';
export { BrokerProxy } from './proxy.ts';
export { BrokerRefusal } from './refusal.ts';
export { registerBrokerTickets } from './routes.ts';
export { BrokerService } from './service.ts';
export { originText, targetOf, upstreamPath } from './target.ts';
export { type SealedTicket, sealTicket, ticketSealHolds } from './tickets.ts';
export { type WebSocketTimes, webSocketTimes } from './tunnel.ts';
