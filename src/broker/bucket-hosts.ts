// Stores that give each bucket a host name of its own.

const services =
  '(?:amazonaws\\.com(?:\\.cn)?|googleapis\\.com|aliyuncs\\.com|myqcloud\\.com|myhuaweicloud\\.com|volces\\.com)';
const bucketHost = new RegExp(
  `^(.+)\\.(?:s3|storage|oss|cos|obs|tos)(?:[.-][a-z0-9-]+)*\\.${services}$`,
);

/** The bucket that the host stands for; undefined where buckets are a part of the path. */
export const bucketOf = (host: string): string | undefined => bucketHost.exec(host)?.[1];
