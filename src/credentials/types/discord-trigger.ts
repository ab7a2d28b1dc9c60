import { defineType } from './define.ts';
import { publicText } from './fields.ts';

export const discordTrigger = defineType({
  name: 'discordTrigger',
  title: 'Discord trigger',
  description: 'The public key with which interactions are verified; it is no secret.',
  fields: { publicKey: publicText({ title: 'Public key' }) },
  noTest: 'It verifies what comes in; there is nothing to call.',
  noBroker: 'It has no secret.',
  aliases: {
    heym: [{ type: 'discord_trigger', fields: { public_key: 'publicKey' } }],
  },
});
