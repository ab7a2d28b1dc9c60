// The door to teams and their members.
export { canShowTeams, registerTeams } from './routes.ts';
export { TeamsService } from './service.ts';
export { takeOverTeams } from './take-over.ts';
export { registerWhoami } from './whoami.ts';
