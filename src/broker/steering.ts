// Headers by which a caller could steer what the policy was not asked about: those that say another
// method, path or host than the request does, and those in which proxies say who calls. An upstream
// that believes one of them believes the caller. Pure.

/**
 * A header's name as servers behind the broker may take it: many read `x_api_key`, some
 * `x.api.key`, as `x-api-key`.
 */
export const foldedName = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]/g, '-');

/** What a whole name is, folded. */
const names: ReadonlySet<string> = new Set([
  // another method
  'x-method',
  'x-verb',
  'x-http-verb',
  'http-method',
  'method-override',
  'verb-override',
  '-method',
  // another path or host
  'base-url',
  'http-url',
  'path-info',
  'request-uri',
  'request-url',
  'script-name',
  'x-backend-host',
  'x-backend-server',
  'x-gateway-host',
  'x-host',
  'x-path-info',
  'x-proxy-url',
  'x-request-path',
  'x-request-uri',
  'x-request-url',
  'x-script-name',
  'x-send-file',
  'x-now-route-matches',
  // the way here
  'forwarded',
  'front-end-https',
  'via',
  'x-bluecoat-via',
  'x-scheme',
  'x-url-scheme',
  // who calls
  'clientip',
  'cf-ipcountry',
  'cf-visitor',
  'ip',
  'client-cert',
  'client-cert-chain',
  'coming-from',
  'fastly-client',
  'remote-host',
  'remote-user',
  'x-cdn-src-ip',
  'x-coming-from',
  'x-edgescape',
  'x-from-ip',
  'x-ip',
  'x-remote-host',
  'x-remote-user',
  'x-webauth-user',
]);

/** How a name begins: families that only proxies and servers of applications write. */
const families = new RegExp(
  '^(?:proxy-|z-?forwarded-|x-(?:forward(?:ed|er)?$|forward(?:ed|er)?-|' +
    'originally-forwarded-|http-|accel-|sendfile|lighttpd-|reproxy-|envoy-|proxy-|' +
    'proxymesh-|proxyuser-|middleware-|invoke-|ssl-client|client-cert|client-verify|' +
    'client-dn|auth-request-|amzn-oidc-|amzn-mtls-|goog-authenticated-user|goog-iap-|' +
    'ms-client-principal|vercel-ip-|akamai-edgescape)|ssl-client)',
);
/** Metadata that callers keep with an object in a store: nobody acts on it. */
export const isMetadata = (folded: string): boolean => /^x-[a-z]+-meta-/.test(folded);
/** What overrides: a method, and everything of an address. */
const overrides = new RegExp(
  '(?:method|verb|url|uri|path|host|query|scheme|ip)-?override(?:-|$)|(?:^|' +
    '-)override-?(?:method|verb|url|uri|path|host|query|ip)(?:-|$)',
);
/** What was asked for originally: the words of gateways and rewriting servers. */
const originals = new RegExp(
  '(?:^|-)(?:original|orig|rewrite|rewritten|replaced|unencoded|matched|requested|' +
    'real|raw|effective)-?(?:method|url|uri|path|pathname|pathinfo|prefix|query|args|' +
    'host|hostname|port|proto|protocol|scheme|target|request-uri)$',
);
/** Whose address: every word that stands for a caller, and every one for an address. */
const addresses = new RegExp(
  '(?:^|-)(?:client|cluster|remote|real|true|source|src|user|peer|connecting|' +
    'origin|original|originating|visitor|caller|trusted|incap-client|' +
    'nf-client-connection|cdn-real|custom)-?(?:remote-)?(?:ip|ips|ipv4|ipv6|ipaddr|' +
    'addr)(?:-|$)|(?:^|-)(?:client|remote|peer|source|external)-?address(?:-|$)|(?:^|' +
    '-)(?:forward|forwarded|proxied|connecting)-for(?:-|$)|^cf-pseudo-ipv4$|' +
    '^x-azure-(?:socketip|fdid|requestchain|ref)$',
);

/**
 * Whether a header of this folded name stays behind: it says another method, path or host, or where
 * the caller comes from and who they are, as a proxy would.
 */
export const isSteering = (folded: string): boolean =>
  !isMetadata(folded) &&
  (names.has(folded) ||
    families.test(folded) ||
    overrides.test(folded) ||
    originals.test(folded) ||
    addresses.test(folded));
