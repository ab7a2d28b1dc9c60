// What teams and their members look like on the wire.
import { unique } from '../shared/refine.ts';
import { z } from 'zod';
import { canShow } from '../http/answers.ts';
import { deliveryList, name, revision, slug, subject, time, tokenFormat } from '../http/schemas.ts';
import type { SeenMember } from './members.ts';
import type { SeenTeam } from './service.ts';
import { roles } from '../access/index.ts';
import type { MemberRow } from './types.ts';

const role = z
  .enum(roles)
  .meta({ id: 'Role', description: 'What a member may do; see the action of each operation.' });
const stamps = {
  revision,
  createdAt: time,
  createdBy: subject,
  updatedAt: time,
  updatedBy: subject,
};
const teamName = name.meta({ examples: ['Payments'] });
export const settings = {
  tokenFormat,
  rotateEveryDays: z
    .int()
    .min(1)
    .max(3650)
    .meta({ format: 'int32' })
    .nullable()
    .meta({
      id: 'RotateEveryDays',
      description: "The keys' rotation policy; null is none.",
      examples: [90],
    }),
  refuseExposedLeases: z.boolean().meta({
    id: 'RefuseExposedLeases',
    description: 'Refuse leases of credentials whose value was ever under a compromised key.',
  }),
  defaultDelivery: deliveryList.meta({
    id: 'DefaultDelivery',
    description: 'The delivery of credentials that are stored without a policy.',
  }),
  versionsKept: z
    .int()
    .min(1)
    .max(1_000)
    .meta({
      id: 'VersionsKept',
      format: 'int32',
      description:
        'How many versions of a credential are kept, the current one counted in; those beyond ' +
        'go when the next one is made.',
      examples: [10],
    }),
};
const settingsIntact = z.boolean().meta({
  examples: [true],
  description:
    'Whether the settings are as the vault wrote them. Where they are not they count for ' +
    'nothing, until an admin sends all of them.',
});
export const team = z
  .strictObject({ slug, name: teamName, ...settings, intact: settingsIntact, ...stamps })
  .meta({ id: 'Team' });
export const teamWithRole = z
  .strictObject({ slug, name: teamName, ...settings, intact: settingsIntact, role, ...stamps })
  .meta({ id: 'TeamWithRole' });
export const teamCreate = z
  .strictObject({
    slug,
    name: teamName,
    admins: unique(z.array(subject).min(1).max(20)).meta({
      description: 'The first admins; a team keeps at least one.',
    }),
  })
  .meta({
    id: 'TeamCreate',
    examples: [{ slug: 'payments', name: 'Payments', admins: ['alice'] }],
  });
export const teamUpdate = z
  .strictObject({
    name: teamName.optional(),
    tokenFormat: tokenFormat.optional(),
    rotateEveryDays: settings.rotateEveryDays.optional(),
    refuseExposedLeases: settings.refuseExposedLeases.optional(),
    defaultDelivery: settings.defaultDelivery.optional(),
    versionsKept: settings.versionsKept.optional(),
  })
  .meta({ id: 'TeamUpdate', examples: [{ name: 'Payments and billing' }] });
export const member = z
  .strictObject({
    subject,
    role,
    actsForItself: z
      .boolean()
      .meta({ description: 'Engines only: may lease without `onBehalfOf`.' }),
    intact: z.boolean().meta({
      description:
        'Whether the row is as the vault wrote it. A member whose row is not can do nothing: ' +
        'put or remove it.',
    }),
    ...stamps,
  })
  .meta({ id: 'Member' });
export const memberPut = z
  .strictObject({ role, actsForItself: z.boolean().optional() })
  .meta({ id: 'MemberPut', examples: [{ role: 'editor' }] });
export const memberPath = z.strictObject({ team: slug, subject });

export const showTeam = (row: SeenTeam): z.output<typeof team> => ({
  slug: row.slug,
  name: row.name,
  tokenFormat: row.tokenFormat,
  rotateEveryDays: row.rotateEveryDays,
  refuseExposedLeases: row.refuseExposedLeases,
  defaultDelivery: [...row.defaultDelivery],
  versionsKept: row.versionsKept,
  intact: row.intact,
  revision: row.revision,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  updatedAt: row.updatedAt,
  updatedBy: row.updatedBy,
});
export const showMember = (row: SeenMember): z.output<typeof member> => ({
  subject: row.sub,
  role: row.role,
  actsForItself: row.actsForItself,
  intact: row.intact,
  revision: row.revision,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  updatedAt: row.updatedAt,
  updatedBy: row.updatedBy,
});

/** Whether these rows can be answered with. */
export const canShowTeams = {
  team: canShow(team, showTeam),
  member: canShow<MemberRow>(member, (row) => showMember({ ...row, intact: true })),
};
