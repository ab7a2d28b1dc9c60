import { defineType } from './define.ts';

export const custom = defineType({
  name: 'custom',
  title: 'Custom',
  description: 'Any fields; each is secret unless declared public when the credential is made.',
  fields: {},
  noTest: 'It says nothing of what it is for.',
  noBroker: 'Nothing says where its fields stand in a request.',
  isOpen: true,
});
