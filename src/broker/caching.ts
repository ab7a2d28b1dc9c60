// What caches between the broker and its callers are told. To a cache only Authorization is
// special, and tickets come in any header: without this it would answer one caller with what
// another one's ticket got. Pure.
import type { AnswerHeaders } from './headers.ts';
import type { Presented } from './ticket-extraction.ts';

/** Directives by which a cache that many share may keep an answer, or `private` for parts of it. */
const sharing = /^(?:public|s-maxage|private)\b/i;

/** Whatever the upstream says, of an answer only the caller's own cache keeps anything. */
export function cachingHeaders(
  { 'cache-control': control = '', vary = '' }: AnswerHeaders,
  { places }: Pick<Presented, 'places'>,
): { readonly 'cache-control': string; readonly vary: string } {
  const directives = listOf(control).filter((each) => !sharing.test(each));
  const names = listOf(vary).filter((each) => each === '*' || nameForm.test(each));
  const added = places.map(({ name }) => name);
  return {
    'cache-control': ['private', ...directives.filter((each) => directiveForm.test(each))].join(
      ', ',
    ),
    vary: names.includes('*') ? '*' : [...new Set([...names, ...added])].join(', '),
  };
}

const nameForm = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/;
const directiveForm = /^[A-Za-z0-9-]+(?:=(?:[A-Za-z0-9-]+|"[A-Za-z0-9 ,_-]*"))?$/;
const listOf = (value: string | readonly string[]): string[] =>
  (
    [value]
      .flat()
      .join(',')
      .match(/(?:[^,"]|"(?:[^"\\]|\\.)*")+/g) ?? []
  )
    .map((each) => each.trim())
    .filter((each) => each !== '');
