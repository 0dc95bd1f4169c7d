"""Reads the Kubernetes manifests, and follows what they say of each other and of the gateway's configuration."""
import json
import pathlib
import sys
import tomllib

import yaml


def main():
    root = pathlib.Path(json.loads(sys.argv[1])["folder"])
    cases = [(f"{file.relative_to(root)} is made of resources", lambda file=file: resources(file)) for file in sorted(root.rglob("*.yaml"))]
    cases += [(f"{file.parent.name}: files that are named exist", lambda file=file: named(file)) for file in sorted(root.rglob("kustomization.yaml"))]
    cases += [(f"{name}: the pod is whole", lambda name=name: whole(root / name)) for name in ("edge", "sidecar", "replicas")]
    cases += [
        ("replicas: as many as the configuration says, and a drained node takes one", lambda: counts(root / "replicas")),
        ("replicas: the store is where the configuration looks for it", lambda: store(root / "replicas")),
        ("replicas: secrets are references", lambda: secrets(root / "replicas")),
    ]
    for number, (name, holds) in enumerate(cases, 1):
        try:
            holds()
            print(f"ok {number} - {name}")
        except Exception as why:  # whatever is wrong with a manifest is the case's failure
            print(f"not ok {number} - {name}: {why!r}")
    print(f"1..{len(cases)}")


def read(file):
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def resources(file):
    documents = read(file)
    assert documents, "nothing"
    for document in documents:
        assert document["apiVersion"] and document["kind"], document
        assert document["kind"] == "Kustomization" or document["metadata"]["name"], document


def named(file):
    (kustomization,) = read(file)
    paths = list(kustomization["resources"])
    paths += [patch["path"] for patch in kustomization.get("patches", [])]
    paths += [path for made in kustomization.get("configMapGenerator", []) for path in made["files"]]
    for path in paths:
        assert (file.parent / path).exists(), path


def built(folder):
    """Every resource, patches merged in, as kustomize does it for what is used here."""
    (kustomization,) = read(folder / "kustomization.yaml")
    found = []
    for path in kustomization["resources"]:
        path = folder / path
        found += built(path) if path.is_dir() else read(path)
    for patch in kustomization.get("patches", []):
        for document in read(folder / patch["path"]):
            (target,) = [one for one in found if (one["kind"], one["metadata"]["name"]) == (document["kind"], document["metadata"]["name"])]
            merge(target, document)
    return found


def merge(into, patch):
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif isinstance(value, list) and isinstance(into.get(key), list) and value and "name" in value[0]:
            for item in value:
                same = [one for one in into[key] if one["name"] == item["name"]]
                merge(same[0], item) if same else into[key].append(item)
        else:
            into[key] = value


def one(found, kind, name):
    (wanted,) = [resource for resource in found if (resource["kind"], resource["metadata"]["name"]) == (kind, name)]
    return wanted


def pods(found):
    return [resource for resource in found if resource["kind"] in ("Deployment", "StatefulSet")]


def whole(folder):
    found = built(folder)
    assert pods(found)
    for resource in pods(found):
        spec = resource["spec"]["template"]["spec"]
        labels = resource["spec"]["template"]["metadata"]["labels"]
        selector = resource["spec"]["selector"]["matchLabels"]
        assert selector.items() <= labels.items(), selector
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in resource["spec"].get("volumeClaimTemplates", [])}
        for container in spec["containers"] + spec.get("initContainers", []):
            ports = {port["name"] for port in container.get("ports", [])}
            for mount in container.get("volumeMounts", []):
                assert mount["name"] in volumes, mount
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                for how in container.get(probe, {}).values():
                    if isinstance(how, dict) and isinstance(how.get("port"), str):
                        assert how["port"] in ports, how
    gateways = [container for resource in pods(found) for container in all_containers(resource) if container["name"] == "vestibule"]
    assert gateways, "no gateway"
    for gateway in gateways:
        assert gateway["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert gateway["livenessProbe"]["httpGet"]["path"] == "/livez"


def all_containers(resource):
    spec = resource["spec"]["template"]["spec"]
    return spec["containers"] + spec.get("initContainers", [])


def counts(folder):
    found, conf = built(folder), tomllib.loads((folder / "vestibule.toml").read_text())
    replicas = one(found, "Deployment", "vestibule")["spec"]["replicas"]
    assert replicas == conf["store"]["replicas"] == 3, replicas
    assert one(found, "PodDisruptionBudget", "vestibule")["spec"]["minAvailable"] == replicas - 1


def store(folder):
    found, conf = built(folder), tomllib.loads((folder / "vestibule.toml").read_text())
    service = one(found, "Service", "vestibule-store")
    (port,) = service["spec"]["ports"]
    assert conf["store"]["servers"] == f"redis://{service['metadata']['name']}:{port['port']}"
    server = one(found, "StatefulSet", "vestibule-store")
    labels = server["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    (container,) = server["spec"]["template"]["spec"]["containers"]
    assert {"name": port["targetPort"], "containerPort": port["port"]} in container["ports"]
    policy = one(found, "NetworkPolicy", "vestibule-store")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (rule,) = policy["ingress"]
    gateway = one(found, "Deployment", "vestibule")["spec"]["template"]["metadata"]["labels"]
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= gateway.items()


def secrets(folder):
    found, conf = built(folder), tomllib.loads((folder / "vestibule.toml").read_text())
    assert not [resource for resource in found if resource["kind"] == "Secret"], "a secret in the repository"
    spec = one(found, "Deployment", "vestibule")["spec"]["template"]["spec"]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "store"]
    mounts = spec["containers"][0]["volumeMounts"]
    (mount,) = [mount for mount in mounts if mount["name"] == "store"]
    assert volume["secret"]["defaultMode"] == 0o440
    files = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
    assert {conf["store"]["password"]["file"], conf["store"]["key_secret"]["file"]} == files


if __name__ == "__main__":
    main()
