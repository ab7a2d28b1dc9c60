"""A client that openapi-generator made, against a vault that runs: create, list, read, patch, bulk."""

import os

import vault_generated as api
from vault_generated.exceptions import ApiException

configuration = api.Configuration(
    host=os.environ["PEER_URL"], access_token=os.environ["PEER_TOKEN"]
)
credentials = api.CredentialsApi(api.ApiClient(configuration))
team = os.environ["PEER_TEAM"]
create = api.CredentialCreate.from_dict(
    {"name": "from-jar", "type": "openai", "fields": {"apiKey": "sk-of-jar"}}
)
created = credentials.create_credential(team, create)
try:
    credentials.create_credential(team, create)
    raise AssertionError("a name that is taken was given again")
except ApiException as refused:
    assert refused.status == 409, refused
listed = credentials.list_team_credentials(team, name_prefix="from-jar")
assert len(listed.actual_instance.items) == 1, listed
read = credentials.get_credential_with_http_info(created.id)
assert read.data.name == "from-jar", read
tag = next(value for name, value in read.headers.items() if name.lower() == "etag")
patched = credentials.update_credential(
    created.id, tag, api.CredentialUpdate.from_dict({"labels": {"from": "jar"}})
)
assert patched.labels["from"] == "jar", patched
bulk = credentials.change_credentials(
    team,
    api.CredentialBulk.from_dict(
        {"items": [{"op": "create", "name": "bulk-jar", "type": "openai", "fields": {"apiKey": "k"}}]}
    ),
)
assert [each.status for each in bulk.results] == [201], bulk
