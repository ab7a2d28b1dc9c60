// The rig's workload does every operation of openapi.yaml: one that is added without its line there
// would never be tried while things break.
import t from 'tap';
import { documentOperations } from '../helpers/documented-answers.ts';
import { allWork } from '../rig/workload/lanes.ts';

t.test(
  'every operation of the document has its line in the workload, and no line is of none',
  async (t) => {
    const documented = [...documentOperations.keys()].sort();
    t.ok(documented.length > 70, 'the document is read');
    t.same(
      Object.keys(allWork).sort(),
      documented,
      'add the operation to the lane of test/rig/workload/ that owns its things',
    );
  },
);
