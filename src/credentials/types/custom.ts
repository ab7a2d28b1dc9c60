import { defineType } from './define.ts';

export const custom = defineType({
  name: 'custom',
  title: 'Custom',
  description: 'Any fields; each is secret unless declared public when the credential is made.',
  fields: {},
  isOpen: true,
});
