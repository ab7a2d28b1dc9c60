// The door to teams and their members.
export { registerTeams } from './routes.ts';
export { canShowTeams } from './schemas.ts';
export { TeamsService } from './service.ts';
export { takeOverTeams } from './take-over.ts';
export { registerWhoami } from './whoami.ts';
