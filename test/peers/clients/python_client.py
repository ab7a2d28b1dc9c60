"""A client that openapi-python-client made, against a vault that runs: create, list, read, patch, bulk."""

import importlib
import os
import pkgutil

import credential_vault_client as package

for module in pkgutil.walk_packages(package.__path__, "credential_vault_client."):
    importlib.import_module(module.name)

from credential_vault_client import AuthenticatedClient, models
from credential_vault_client.api.credentials import (
    change_credentials,
    create_credential,
    get_credential,
    list_team_credentials,
    update_credential,
)

client = AuthenticatedClient(base_url=os.environ["PEER_URL"], token=os.environ["PEER_TOKEN"])
team = os.environ["PEER_TEAM"]
create = models.CredentialCreate.from_dict(
    {"name": "from-python", "type": "openai", "fields": {"apiKey": "sk-of-python"}}
)
created = create_credential.sync(team, client=client, body=create)
assert isinstance(created, models.Credential), created
again = create_credential.sync(team, client=client, body=create)
assert isinstance(again, models.Problem) and again.code == "nameTaken", again
listed = list_team_credentials.sync(team, client=client, name_prefix="from-python")
assert len(listed.items) == 1, listed
read = get_credential.sync_detailed(created.id, client=client)
assert read.parsed.name == "from-python", read
patched = update_credential.sync(
    created.id,
    client=client,
    if_match=read.headers["etag"],
    body=models.CredentialUpdate.from_dict({"labels": {"from": "python"}}),
)
assert patched.labels["from"] == "python", patched
bulk = change_credentials.sync(
    team,
    client=client,
    body=models.CredentialBulk.from_dict(
        {
            "items": [
                {"op": "create", "name": "bulk-python", "type": "openai", "fields": {"apiKey": "k"}},
                {"op": "delete", "id": str(created.id), "revision": "*"},
            ]
        }
    ),
)
assert [each.status for each in bulk.results] == [201, 204], bulk
