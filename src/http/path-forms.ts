// Which methods a path takes, by its form alone: what a request is told whose method is none of
// them. The router is fastify's own, so that a form is here what it is there.
import findMyWay from 'find-my-way';
import { AppError } from '../shared/errors.ts';
import { paramLengthMax } from '../shared/limits.ts';

/** How paths are told apart, here and in fastify. */
export const pathRules = {
  maxParamLength: paramLengthMax,
  ignoreTrailingSlash: false,
  caseSensitive: true,
} as const;

/** All paths of one form. */
export interface PathForm {
  readonly url: string;
  readonly methods: readonly string[];
  /** Whether anybody may ask here, with a method that there is. */
  readonly isPublic: boolean;
}

interface Growing extends PathForm {
  readonly methods: string[];
  isPublic: boolean;
}

/** The forms of the paths that there are. */
export class PathForms {
  readonly #router = findMyWay({ ...pathRules, onBadUrl: nothing });
  readonly #forms = new Map<string, Growing>();
  /** A request that is about no path (`OPTIONS *`, `CONNECT`) is about the service as a whole. */
  readonly #whole: Growing = { url: '*', methods: [], isPublic: true };

  add(url: string, methods: readonly string[], isPublic: boolean): void {
    let form = this.#forms.get(url);
    if (form === undefined) {
      form = { url, methods: [], isPublic: true };
      this.#forms.set(url, form);
      this.#router.on('GET', url, nothing, form);
    }
    form.methods.push(...methods);
    form.isPublic &&= isPublic;
    for (const method of methods)
      if (!this.#whole.methods.includes(method)) this.#whole.methods.push(method);
  }

  /** The form of what was asked for; undefined where there is none. */
  find(method: string, url: string): PathForm | undefined {
    if (method === 'CONNECT' || url === '*') return this.#whole;
    const found = this.#router.find('GET', url);
    // A path that ends where a name should stand is no path of that form.
    const isWhole = found !== null && !Object.values(found.params ?? {}).includes('');
    return isWhole ? ((found.store ?? undefined) as PathForm | undefined) : undefined;
  }
}

/** The path is there and takes other methods. */
export const methodNotAllowed = ({ methods }: PathForm): AppError =>
  new AppError('methodNotAllowed', 'This path takes other methods: those in Allow.', {
    allow: [...methods].sort(),
  });

function nothing(): void {
  /* nobody is sent here: forms are only looked up */
}
