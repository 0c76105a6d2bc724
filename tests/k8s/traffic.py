"""Who may talk to whom: NetworkPolicies read as a cluster's network reads them."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.k8s.manifests import Object, Pod


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod by its labels, in a namespace; or an address outside, without labels."""

    labels: dict[str, str]
    namespace: str | None = "rung"

    @classmethod
    def of(cls, pod: Pod) -> "Peer":
        return cls(pod.labels)


OUTSIDE = Peer({}, None)


def allowed(policies: list[Object], source: Peer, target: Peer, port: int) -> bool:
    """Whether the source may open a connection: both ends' policies must allow it."""
    return _allowed_at(policies, source, target, port, "Egress") and _allowed_at(
        policies, target, source, port, "Ingress"
    )


def _allowed_at(policies: list[Object], here: Peer, there: Peer, port: int, direction: str) -> bool:
    if here.namespace != "rung":
        return True  # other namespaces have policies of their own
    chosen = [policy["spec"] for policy in policies if _matches(policy["spec"]["podSelector"], here.labels)]
    chosen = [spec for spec in chosen if direction in spec["policyTypes"]]
    return not chosen or any(_rule_allows(rule, there, port) for spec in chosen for rule in _rules(spec, direction))


def _rules(spec: Object, direction: str) -> Iterator[tuple[list[Object], list[Object]]]:
    for rule in spec.get(direction.lower(), []):
        yield rule.get("from" if direction == "Ingress" else "to", []), rule.get("ports", [])


def _rule_allows(rule: tuple[list[Object], list[Object]], there: Peer, port: int) -> bool:
    peers, ports = rule
    if ports and not any(entry["port"] == port for entry in ports):
        return False
    return not peers or any(_is_peer(peer, there) for peer in peers)


def _is_peer(peer: Object, there: Peer) -> bool:
    if there.namespace is None:
        return False
    if "namespaceSelector" in peer:
        names = {"kubernetes.io/metadata.name": there.namespace}
        if not _matches(peer["namespaceSelector"], names):
            return False
    elif there.namespace != "rung":
        return False
    return _matches(peer.get("podSelector", {}), there.labels)


def _matches(selector: Object, labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "only matchLabels are read here"
    return selector.get("matchLabels", {}).items() <= labels.items()
