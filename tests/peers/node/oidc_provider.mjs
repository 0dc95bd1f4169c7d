// A certified OpenID provider with one client of the client_credentials grant. Its access tokens are JWTs, signed with
// the algorithm that the resource indicator names: `urn:peers:RS256` and so on; those for `urn:peers:opaque` are opaque.
// Argument: { port, host, issuer, proxy }. Says { port, issuer, kids }.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";

import { asked, ready } from "./launch.mjs";

// The library warns of development habits, which is what this is.
console.warn = console.info = () => {};
const { Provider } = await import("oidc-provider");

const keys = [
  ["RS256", generateKeyPairSync("rsa", { modulusLength: 2048 })],
  ["ES256", generateKeyPairSync("ec", { namedCurve: "P-256" })],
  ["EdDSA", generateKeyPairSync("ed25519")],
].map(([alg, { privateKey }]) => ({ ...privateKey.export({ format: "jwk" }), alg, use: "sig", kid: randomUUID() }));

function resourceServer(_ctx, resource) {
  if (resource === "urn:peers:opaque") return { audience: "peers", scope: "read write", accessTokenFormat: "opaque", accessTokenTTL: 600 };
  const alg = keys.map((key) => key.alg).find((alg) => resource === `urn:peers:${alg}`);
  if (!alg) throw new Error(`unknown resource ${resource}`);
  return { audience: "peers", scope: "read write", accessTokenFormat: "jwt", jwt: { sign: { alg } }, accessTokenTTL: 600 };
}

const server = createServer();
server.listen(asked.port ?? 0, "127.0.0.1", () => {
  const { port } = server.address();
  const issuer = asked.issuer ?? `http://127.0.0.1:${port}`;
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: "peer",
      client_secret: "peer-secret-worth-nothing",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    }],
    scopes: ["read", "write"],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer },
    },
    enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256", "EdDSA"] },
  });
  provider.proxy = asked.proxy ?? false;
  server.on("request", provider.callback());
  ready({ port, issuer, kids: Object.fromEntries(keys.map((key) => [key.alg, key.kid])) });
});
