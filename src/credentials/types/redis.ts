import { defineType, host, number, optionalSecret, port } from './define.ts';

export const redis = defineType({
  name: 'redis', title: 'Redis', description: 'A Redis server.',
  fields: {
    host: host({ title: 'Host' }), port: port(6379), password: optionalSecret({ title: 'Password' }),
    db: number({ title: 'Database', default: 0, min: 0, max: 65_535 }),
  },
});
