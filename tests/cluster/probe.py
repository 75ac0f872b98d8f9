# Asks M for credentials again and again, on new connections and by both families, until its standard input ends:
# probe.py PAUSE TIMEOUT, both in seconds. One line an attempt:
#   ADDRESS ROLE ACCESS_KEY_ID      credentials were given
#   ADDRESS HTTP STATUS             refused
#   ADDRESS - REASON                nothing came
import http.client, json, select, sys

PAUSE, TIMEOUT = map(float, sys.argv[1:])
ROLES = "/latest/meta-data/iam/security-credentials/"


def get(connection, path):
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read().decode()
    return (answer.status, body)


def attempt(address):
    connection = http.client.HTTPConnection(address, 80, timeout=TIMEOUT)
    try:
        status, role = get(connection, ROLES)
        if status == 200:
            status, document = get(connection, ROLES + role)
        if status == 200:
            return f"{role} {json.loads(document)['AccessKeyId']}"
        return f"HTTP {status}"
    except (OSError, http.client.HTTPException) as error:
        return f"- {type(error).__name__}"
    finally:
        connection.close()


asked_to_end = False
while not asked_to_end:
    for address in ("169.254.169.254", "fd00:ec2::254"):
        print(address, attempt(address), flush=True)
    asked_to_end = bool(select.select([sys.stdin], [], [], PAUSE)[0])
