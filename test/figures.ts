// npm run figures: the figures of CONTRIBUTING.md, as they are now.
import { figuresOf } from './helpers/figures.ts';
import { sourceFiles } from './helpers/source-files.ts';

const { files, linesOver120, circles, medianLines, largest, duplicatedNames } = figuresOf(
  sourceFiles('src'),
);
process.stdout.write(`files of src                 ${files}
lines over 120 columns       ${linesOver120.length}
circles among files          ${circles.length}
lines of the median file     ${medianLines}
lines of the largest file    ${largest.lines} (${largest.path})
names that stand for two     ${duplicatedNames.length}
`);
