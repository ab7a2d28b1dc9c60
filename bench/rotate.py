# One transaction, row by row, MultiFernet.rotate: how a well-known workflow scheduler changes its key, on the driver alone.
# From the environment: DATABASE, KEYS (new,old). Prints one JSON object.
import json
import os
import time

from cryptography.fernet import Fernet, MultiFernet

try:
    import psycopg2 as driver
except ImportError:
    import psycopg as driver

fernet = MultiFernet([Fernet(key) for key in os.environ["KEYS"].split(",")])
connection = driver.connect(os.environ["DATABASE"])
begun = time.perf_counter()
cursor = connection.cursor()
cursor.execute("select credential_id, token from floor.python")
rows = cursor.fetchall()
for credential, token in rows:
    cursor.execute("update floor.python set token = %s where credential_id = %s", (fernet.rotate(token.encode()).decode(), credential))
connection.commit()
print(json.dumps({"moved": len(rows), "seconds": time.perf_counter() - begun}))
