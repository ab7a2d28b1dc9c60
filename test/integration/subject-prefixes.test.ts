// Whoever is put behind a prefix gets the rights of its subjects: a start that would hand them to
// another issuer does not happen, unless somebody says so.
import t from 'tap';
import { settlePrefixes, type SubjectPrefix } from '../../src/db/subject-prefixes.ts';
import { registerEngine } from '../helpers/leases.ts';
import { startVault } from '../helpers/vault.ts';

const people = { prefix: '', issuer: 'https://people.test' };
const machines = { prefix: 'k8s:', issuer: 'https://k8s.test' };
const other = (of: SubjectPrefix): SubjectPrefix => ({ ...of, issuer: 'https://other.test' });

t.test('a prefix stays with its issuer while subjects with it hold rights', async (t) => {
  const vault = await startVault(t);
  const settle = async (configured: SubjectPrefix[], isAccepted = false): Promise<string> => {
    try {
      await settlePrefixes(vault.db, configured, { isAccepted });
      return 'starts';
    } catch (error) {
      return (error as Error).name;
    }
  };
  t.equal(
    await settle([people]),
    'starts',
    'a vault that remembers nothing takes what it is given',
  );
  t.equal(await settle([other(people)]), 'starts', 'nobody holds a right');
  t.equal(await settle([people]), 'starts');
  await vault.team('payments', ['alice']);
  t.equal(await settle([people]), 'starts');
  t.equal(await settle([other(people)]), 'SubjectsWouldMove');
  t.equal(await settle([people, machines]), 'starts', 'one more, whose subjects hold nothing');
  t.equal(await settle([people, other(machines)]), 'starts');
  t.equal(await settle([people, machines]), 'starts');
  await registerEngine(vault, 'k8s:engine');
  t.equal(await settle([people, other(machines)]), 'SubjectsWouldMove', 'an engine is let in too');
  t.equal(await settle([people, { ...machines, prefix: 'cluster:' }]), 'SubjectsWouldMove');
  t.equal(await settle([people]), 'starts', 'an issuer that is gone');
  t.equal(
    await settle([people, other(machines)]),
    'SubjectsWouldMove',
    'gives its prefix to nobody',
  );
  t.equal(
    await settle([
      { ...people, prefix: 'p:' },
      { prefix: '', issuer: 'https://other.test' },
    ]),
    'SubjectsWouldMove',
    'nor does one that gets another prefix',
  );
  t.equal(await settle([people, machines]), 'starts', 'what was refused has changed nothing');
  await vault.team('stores', ['gh:repo']);
  t.equal(
    await settle([people, machines, { prefix: 'gh:', issuer: 'https://gh.test' }]),
    'SubjectsWouldMove',
    'subjects that begin so are of the issuer without a prefix yet',
  );
  t.equal(await settle([people, other(machines)], true), 'starts', 'accepted');
  t.equal(await settle([people, other(machines)]), 'starts', 'once for all');
  t.equal(await settle([people, machines]), 'SubjectsWouldMove');
});
