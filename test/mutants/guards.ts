// Finds guards in a source file, each with the text that takes it out. A guard is what refuses,
// what scopes a statement to a team or a revision, what compares a MAC. Other operators are left
// alone: whether a sum is right is a matter of other tests.
import { stripTypeScriptTypes } from 'node:module';
import { type Comment, type Node, parse } from 'acorn';
import { ancestor } from 'acorn-walk';

export type GuardKind =
  | 'refusal' // an `if` that throws or leaves early
  | 'part of a refusal' // one alternative of its condition
  | 'throw' // a throw that stands alone
  | 'check' // a call that throws, for nothing but that
  | 'part of a permission' // one condition of a boolean that functions return
  | 'scope' // a condition of a statement on a team, a revision, an owner
  | 'comparison'; // of MACs

export interface Guard {
  readonly path: string;
  readonly line: number;
  readonly kind: GuardKind;
  /** The piece of the file that is replaced, by offset, and by what. */
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
  /** Where it has to be run to have been tested: an offset that runs when the guard is asked. */
  readonly at: number;
  /** What holds first, as the code says: without this guard nothing gets through. */
  readonly secondLine: string | undefined;
}

/** The word that declares a guard to stand behind another one. */
export const secondLineWord = 'SECOND LINE:';

/** Every guard of a TypeScript file, in its order. */
export function findGuards(path: string, text: string): Guard[] {
  // Node's own stripping puts blanks for types, so that offsets are those of the file.
  const code = stripTypeScriptTypes(text, { mode: 'strip' });
  if (code.length !== text.length)
    throw new Error(`${path}: its types cannot be stripped in place`);
  const comments: Comment[] = [];
  const program = parse(code, {
    ecmaVersion: 'latest',
    sourceType: 'module',
    locations: true,
    onComment: comments,
  });
  const guards = new Map<string, Guard>();
  const declared = declarations(text, comments);
  const add = (
    kind: GuardKind,
    node: Pick<Node, 'start' | 'end'>,
    replacement: string,
    statement: Pick<Node, 'start'> = node,
  ): void => {
    // A condition of a chain begins behind the one before it, on another line and past a comment.
    const line = lineOf(text, Math.max(node.start, Math.min(statement.start, node.end)));
    const key = `${node.start} ${node.end}`;
    if (guards.has(key)) return;
    const above = declared.get(lineOf(text, statement.start));
    // Of a statement in SQL the words have to name the column.
    const column = /\w*_id|revision|state|sequence|deleted_at|expires_at|current_version|role/.exec(
      text.slice(node.start, node.end),
    )?.[0];
    const isMeant = kind !== 'scope' || (column !== undefined && above?.includes(column) === true);
    const secondLine = declared.get(line) ?? (isMeant ? above : undefined);
    guards.set(key, {
      path,
      line,
      kind,
      start: node.start,
      end: node.end,
      replacement,
      at: node.start,
      secondLine,
    });
  };

  ancestor(program, {
    IfStatement(node) {
      const { test, consequent } = node;
      const leaving = leavingOf(consequent);
      if (leaving === undefined) return;
      if (isAnswer(leaving, 'true')) {
        add('refusal', test, 'true', node);
      } else if (isAnswer(leaving, 'value') || (asksForPresence(test, '=') && !throws(leaving))) {
        // a short cut, or what the types ask for
      } else {
        add('refusal', test, 'false', node);
        for (const operand of alternatives(test))
          if (!asksForPresence(operand, '=')) add('part of a refusal', operand, 'false', node);
      }
    },
    ThrowStatement(node, _state, ancestors) {
      const parents = ancestors.slice(0, -1);
      const parent = parents.at(-1)!;
      const isBranch =
        parent.type === 'IfStatement' ||
        (parent.type === 'BlockStatement' &&
          parents.at(-2)?.type === 'IfStatement' &&
          (parent as Node & { body: Node[] }).body.at(-1) === (node as Node));
      const isRethrow = parents.some(({ type }) => type === 'CatchClause');
      if (!isBranch && !isRethrow) add('throw', node, ';');
    },
    ExpressionStatement(node) {
      const call = (
        node.expression.type === 'AwaitExpression' ? node.expression.argument : node.expression
      ) as Node & { callee?: Node };
      if (call.type === 'CallExpression' && checks.test(nameOf(call.callee!)))
        add('check', node, ';');
    },
    CallExpression(node, _state, ancestors) {
      const name = nameOf(node.callee);
      const [parent, above] = [ancestors.at(-2)!, ancestors.at(-3)];
      const isRefusal = parent.type === 'UnaryExpression' && above?.type === 'IfStatement';
      if (comparisons.test(name) && !isRefusal) add('comparison', node, 'true');
      const [column] = node.arguments;
      if (
        name === 'where' &&
        node.callee.type === 'MemberExpression' &&
        column?.type === 'Literal' &&
        scoped.test(String(column.value))
      )
        add('scope', { start: node.callee.object.end, end: node.end }, '', {
          start: node.callee.property.start,
        });
    },
    ReturnStatement(node) {
      if (node.argument) permissions(node.argument, node);
    },
    ArrowFunctionExpression(node) {
      if (node.body.type !== 'BlockStatement') permissions(node.body, node);
    },
    VariableDeclarator(node) {
      const name = node.id.type === 'Identifier' ? node.id.name : '';
      if (node.init && /^(is|has|can|may)[A-Z]/.test(name)) permissions(node.init, node);
    },
    TemplateLiteral(node, _state, ancestors) {
      const statement = ancestors.findLast(({ type }) => /Statement$|Declaration$/.test(type));
      // The conditions of a statement: an equation, with a value or another column.
      for (const { start, end } of conditionsIn(text.slice(node.start, node.end), node.start))
        add('scope', { start, end }, `(${text.slice(start, end)} or true)`, statement);
    },
  });
  function permissions(expression: Node, statement: Node): void {
    for (const operand of conjuncts(expression))
      if (!asksForPresence(operand, '!')) add('part of a permission', operand, 'true', statement);
  }
  return [...guards.values()].sort((a, b) => a.start - b.start || a.end - b.end);
}

const checks = /^#?(check|assert|require|demand|refuse|verify|ensure|keep|must)([A-Z]\w*)?$/;
const comparisons = /^(timingSafeEqual|verifyRowMac|\w*[sS]ealHolds|verify)$/;
/** Columns by which a statement keeps to its team, its owner, or the state that it was decided on. */
const scoped =
  /(^|\.)(\w*team_id|revision|state|subject_id|engine_id|claim_id|sequence|from_subject|role|deleted_at|expires_at|data_key_id|current_version)$/;

/** The statement by which what stands there leaves, if it does. */
function leavingOf(node: Node): Node | undefined {
  if (node.type === 'BlockStatement') {
    const last = (node as Node & { body: Node[] }).body.at(-1);
    return last && leavingOf(last);
  }
  return /^(Throw|Return|Continue|Break)Statement$/.test(node.type) ? node : undefined;
}

const throws = (leaving: Node): boolean => leaving.type === 'ThrowStatement';

/** Whether a return answers `true`, or a value that was found: what was asked for, and no refusal. */
function isAnswer(leaving: Node, what: 'true' | 'value'): boolean {
  if (leaving.type !== 'ReturnStatement') return false;
  const { argument } = leaving as Node & {
    argument: (Node & { value?: unknown; name?: string }) | null;
  };
  if (argument === null) return false;
  if (what === 'true') return argument.type === 'Literal' && argument.value === true;
  return (
    (argument.type === 'Identifier' && argument.name !== 'undefined') ||
    argument.type === 'MemberExpression' ||
    argument.type === 'TemplateLiteral'
  );
}

/**
 * Whether an expression asks for nothing but whether something is absent (`=`) or there (`!`): a
 * refusal of what is absent, a permission for what is there, as types demand. The other way round
 * it is a rule like any other.
 */
function asksForPresence(node: Node, sign: '=' | '!'): boolean {
  if (node.type === 'LogicalExpression')
    return (
      asksForPresence((node as Logical).left, sign) &&
      asksForPresence((node as Logical).right, sign)
    );
  if (node.type !== 'BinaryExpression') return false;
  const { operator, right } = node as Node & {
    operator: string;
    right: Node & { name?: string; raw?: string };
  };
  return (
    new RegExp(`^${sign}==?$`).test(operator) &&
    (right.name === 'undefined' || right.raw === 'null')
  );
}

type Logical = Node & { operator: string; left: Node; right: Node };
function operandsOf(node: Node, operator: '&&' | '||'): Node[] {
  if (node.type !== 'LogicalExpression' || (node as Logical).operator !== operator) return [];
  const { left, right } = node as Logical;
  return [left, right].flatMap((side) => {
    const inner = operandsOf(side, operator);
    return inner.length > 0 ? inner : [side];
  });
}
const alternatives = (node: Node): Node[] => operandsOf(node, '||');
const conjuncts = (node: Node): Node[] => operandsOf(node, '&&');

function nameOf(callee: Node): string {
  if (callee.type === 'Identifier') return (callee as Node & { name: string }).name;
  if (callee.type !== 'MemberExpression') return '';
  const { property } = callee as Node & { property: Node & { name?: string } };
  return property.name ?? '';
}

const equation =
  /\b(?:\w+\.)?(?:\w*team_id|revision|subject_id|engine_id|claim_id|sequence|state|data_key_id|current_version|deleted_at|expires_at|role)\s*(?:<>|>=|<=|=|>|<|is)\s*(?:\$\{(?:[^{}]|\{[^{}]*\})*\}|'[^']*'|(?:not )?null|now\(\)|any ?\(\$\{[^}]*\}\)|\w+\.\w+)/g;

/** Conditions of a template that holds SQL, outside of lists of columns and values. */
function conditionsIn(text: string, offset: number): { start: number; end: number }[] {
  const found: { start: number; end: number }[] = [];
  for (const match of text.matchAll(equation)) {
    const before = text.slice(0, match.index);
    // What is assigned is no condition.
    const clause =
      /\b(set|where|on|and|or|when|values|returning|select|filter)\b(?![\s\S]*\b(?:set|where|on|and|or|when|values|returning|select|filter)\b)/i.exec(
        before,
      )?.[1];
    if (clause === undefined || !/^(where|on|and|when)$/i.test(clause)) continue;
    if (/[,]\s*$/.test(before)) continue;
    // A second part of a foreign key: the row that the id names has this team and no other.
    if (/team_id\s*=\s*\w+\.team_id$/.test(match[0])) continue;
    found.push({ start: offset + match.index, end: offset + match.index + match[0].length });
  }
  return found;
}

/** Declared second lines by the line of the guard: the comment's own, or the one below it. */
function declarations(text: string, comments: readonly Comment[]): Map<number, string> {
  const declared = new Map<number, string>();
  const byLine = new Map(comments.map((comment) => [lineOf(text, comment.start), comment]));
  for (const comment of comments) {
    const said = comment.value.indexOf(secondLineWord);
    if (said === -1) continue;
    const line = lineOf(text, comment.start);
    const lineStart = text.lastIndexOf('\n', comment.start - 1) + 1;
    const isAlone = text.slice(lineStart, comment.start).trim() === '';
    let below = line + 1;
    while (isAlone && byLine.has(below)) below += 1;
    declared.set(isAlone ? below : line, comment.value.slice(said + secondLineWord.length).trim());
  }
  return declared;
}

function lineOf(text: string, offset: number): number {
  let line = 1;
  for (let at = text.indexOf('\n'); at !== -1 && at < offset; at = text.indexOf('\n', at + 1))
    line += 1;
  return line;
}
