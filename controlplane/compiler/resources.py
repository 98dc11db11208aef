"""The resources of each object. They are compiled again only when the object changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane.compiler.access_log import compile_collector
from controlplane.compiler.body_routing import compile_own_resources, models_by_key
from controlplane.compiler.clusters import cluster_name, compile_cluster, compile_mirror, mirror_name
from controlplane.compiler.endpoints import NOWHERE, compile_endpoints, spread
from controlplane.compiler.fallback import compile_fallbacks, fallback_name
from controlplane.compiler.functions import NO_FUNCTIONS, Functions
from controlplane.compiler.grpc_ports import names_of
from controlplane.compiler.listeners import compile_listener
from controlplane.compiler.memo import Memo
from controlplane.compiler.own_answers import compile_own_answers
from controlplane.compiler.patches import compile_added_clusters, within_version
from controlplane.compiler.proxyless import compile_proxyless, grpc_cluster, served_versions
from controlplane.compiler.rate_limits import Limits, compile_rate_limits, divisor, limits_of
from controlplane.compiler.routes import compile_routes
from controlplane.compiler.scopes import compile_scopes
from controlplane.compiler.secrets import compile_secret, secret_label
from controlplane.compiler.who import shows_revision
from controlplane.domain import Affinity, BodyRouting, Gateway, Locality, Mirror, Model, Secret, Version
from controlplane.domain.endpoints import Endpoints, LiveEndpoint
from controlplane.domain.state import State
from controlplane.envoy_types import SECRET
from controlplane.snapshot import Audience, Client, Resource

# Gateways and audiences whose own routes are remembered. At the bound all are forgotten, and compiled again on demand.
_OWN = 4_096
# Entries of deleted objects are dropped when entries exist for more models than twice those of the state plus this number.
_SLACK = 64

# ClusterLoadAssignments that are remembered. At the bound those for nodes of one locality are forgotten.
_MAX_ASSIGNMENTS = 100_000

_Keys = tuple[str, tuple[str, ...]]
_LiveEndpoints = tuple[LiveEndpoint, ...] | None


class CompiledObjects:
    """Compiles objects. An object that stays equal has the same Resource objects each time."""

    def __init__(self, functions: Functions = NO_FUNCTIONS) -> None:
        """`functions` are those that patches name."""
        self._functions = functions
        # By (model, version), and the nodes' locality if it matters (`_place`); the float is the model's request timeout.
        self._clusters: Memo[tuple[str, str, Locality], tuple[Version, Affinity | None, float], list[Resource]] = Memo()
        # By cluster name, and the locality of the nodes if the endpoints are in several localities.
        self._assignments: Memo[tuple[str, Locality], tuple[Version, _LiveEndpoints], list[Resource]] = Memo()
        # By (model, locality) as above; the float is the model's request timeout.
        self._fallbacks: Memo[tuple[str, Locality], tuple[tuple[Version, ...], Affinity | None, float], list[Resource]] = (
            Memo()
        )
        # By (model, locality) as above; the float is the model's request timeout.
        self._mirrors: Memo[tuple[str, Locality], tuple[Version, Mirror, float], list[Resource]] = Memo()
        # By (model, True if its revision is shown, divisors of its rate limits); the number is that revision, or 0.
        self._routes: Memo[tuple[str, bool, frozenset[int]], tuple[Model, int], Resource] = Memo()
        self._proxyless: Memo[str, Model, list[Resource]] = Memo()
        # By (gateway, model), of a gateway and the model's route keys.
        self._scopes: Memo[tuple[str, str], tuple[Gateway, tuple[str, ...]], list[Resource]] = Memo()
        # By gateway.
        self._listeners: Memo[str, Gateway, list[Resource]] = Memo()
        # By gateway and the models that the audience names, of a gateway, and the limits and the (label, keys) of its models.
        self._own: Memo[tuple[str, frozenset[str] | None], tuple[Gateway, Limits, tuple[_Keys, ...]], list[Resource]] = Memo()
        # By name of the resource.
        self._secrets: Memo[str, Secret, Resource] = Memo()

    def listener(self, gateway: Gateway) -> list[Resource]:
        """Return the listener of a gateway, the cluster of the collector of its access log, and those that its patches add."""

        def compiled() -> list[Resource]:
            return [compile_listener(gateway, self._functions), *compile_collector(gateway), *compile_added_clusters(gateway)]

        return self._listeners.get(gateway.name, gateway, compiled)

    def own(self, gateway: Gateway, models: Sequence[Model], audience: Audience) -> list[Resource]:
        """Return the routes of a gateway itself and the scopes that lead to them, for an audience that gets these models.

        Also the configuration of the filters that apply the rate limits of these models.
        """
        limits = limits_of(models)

        def compiled() -> list[Resource]:
            filters = compile_rate_limits(gateway, limits)
            if isinstance(gateway.routing, BodyRouting):
                return [*filters, *compile_own_resources(gateway, models_by_key(gateway, models))]
            return [*filters, *compile_own_answers(gateway, models)]

        if len(self._own) >= _OWN:
            self._own.keep(lambda key: False)
        source = (gateway, limits, tuple((model.name, model.route_keys) for model in models))
        return self._own.get((gateway.name, audience.models), source, compiled)

    def model(self, state: State, endpoints: Endpoints, model: Model, audience: Audience, revision: int) -> list[Resource]:
        """Return all resources of a model that an audience gets. `revision` is the one in which the model last changed.

        Empty if the audience has none of the model's gateways, or names other models.
        """
        if audience.models is not None and model.name not in audience.models:
            return []
        gateways = [state.gateways[g] for g in audience.gateways if g in model.gateways]
        if not gateways:
            return []
        if audience.client is Client.GRPC:
            return self._for_grpc(endpoints, model, Locality(*audience.place))
        resources: list[Resource] = []
        node = Locality(*audience.place)
        for version in model.versions:
            resources += self._cluster(model, version, node)
            resources += self._assignment(cluster_name(model.name, version.name), model.name, version, endpoints, node)
        resources += self._fallback(endpoints, model, node)
        resources += self._mirror(endpoints, model, node)
        resources.append(self._route(model, revision if any(map(shows_revision, gateways)) else 0, gateways))
        for gateway in gateways:
            resources += self._scope(gateway, model)
        return resources

    def secrets(self, state: State, resources: Iterable[Resource]) -> list[Resource]:
        """Return the secrets that the resources refer to, and no others. A node never gets a secret that it does not need."""
        names = sorted({name for r in resources for type_url, name in r.refs if type_url == SECRET})
        return [self._secret(state.secrets[secret_label(name)], name) for name in names]

    def forget(self, state: State) -> bool:
        """Drop entries of deleted objects: of secrets at once, of others when there are many.

        Return True if there were many.
        """
        self._secrets.keep(lambda name: secret_label(name) in state.secrets)
        if len(self._assignments) > _MAX_ASSIGNMENTS:
            self._assignments.keep(lambda key: key[1] == NOWHERE)
        if max(len(self._routes), len(self._proxyless)) <= 2 * len(state.models) + _SLACK:
            return False
        self._proxyless.keep(lambda model: model in state.models)
        self._routes.keep(lambda key: key[0] in state.models)
        self._clusters.keep(lambda key: key[0] in state.models)
        self._assignments.keep(lambda key: key[0].partition("/")[0] in state.models)
        self._fallbacks.keep(lambda key: key[0] in state.models)
        self._mirrors.keep(lambda key: key[0] in state.models)
        self._scopes.keep(lambda key: key[0] in state.gateways and key[1] in state.models)
        self._listeners.keep(lambda gateway: gateway in state.gateways)
        self._own.keep(lambda key: key[0] in state.gateways)
        return True

    def _cluster(self, model: Model, version: Version, node: Locality) -> list[Resource]:
        source, place = (version, model.affinity, model.timeouts.request), _place(node, version)

        def compiled() -> list[Resource]:
            with within_version(model, version.name):
                return compile_cluster(model.name, *source, place, self._functions)

        return self._clusters.get((model.name, version.name, place), source, compiled)

    def _assignment(
        self, cluster: str, model: str, version: Version, endpoints: Endpoints, node: Locality, to_the_last: bool | None = None
    ) -> list[Resource]:
        """Return the endpoints of a cluster of a version, and of the one with the gRPC ports if it has some."""
        names = names_of(cluster, version)
        return [r for n in names for r in self._assignment_of(n, model, version, endpoints, node, to_the_last)]

    def _assignment_of(
        self, cluster: str, model: str, version: Version, endpoints: Endpoints, node: Locality, to_the_last: bool | None = None
    ) -> list[Resource]:
        live = endpoints.of(model, version.name)
        place = node if spread(version, live) else NOWHERE
        last = bool(version.fallback) if to_the_last is None else to_the_last
        return self._assignments.get(
            (cluster, place), (version, live), lambda: compile_endpoints(cluster, version, live, place, to_the_last=last)
        )

    def _fallback(self, endpoints: Endpoints, model: Model, node: Locality) -> list[Resource]:
        """Return the clusters of a model's fallbacks, and their endpoints."""
        levels = [(v, model.version(name)) for v in model.versions if v.endpoints for name in v.fallback]
        if not levels:
            return []
        source = (model.versions, model.affinity, model.timeouts.request)
        place = _place(node, *(fallback for _, fallback in levels))
        key = (model.name, place)
        resources = list(self._fallbacks.get(key, source, lambda: compile_fallbacks(model, place, self._functions)))
        for version, fallback in levels:
            name = fallback_name(model.name, version.name, fallback.name)
            resources += self._assignment(name, model.name, fallback, endpoints, node, to_the_last=True)
        return resources

    def _mirror(self, endpoints: Endpoints, model: Model, node: Locality) -> list[Resource]:
        if model.mirror is None:
            return []
        version = model.version(model.mirror.version)
        source = (version, model.mirror, model.timeouts.request)
        place = _place(node, version)
        cluster = self._mirrors.get((model.name, place), source, lambda: compile_mirror(model, place, self._functions))
        return [*cluster, *self._assignment(mirror_name(model.name, version.name), model.name, version, endpoints, node)]

    def _route(self, model: Model, revision: int, gateways: Sequence[Gateway]) -> Resource:
        divisors = frozenset(map(divisor, gateways)) if model.rate_limits else frozenset()
        key = (model.name, revision > 0, divisors)
        return self._routes.get(key, (model, revision), lambda: compile_routes(model, revision, divisors, self._functions))

    def _scope(self, gateway: Gateway, model: Model) -> list[Resource]:
        source = (gateway, model.route_keys)
        return self._scopes.get((gateway.name, model.name), source, lambda: compile_scopes(gateway, model))

    def _for_grpc(self, endpoints: Endpoints, model: Model, node: Locality) -> list[Resource]:
        resources = list(self._proxyless.get(model.name, model, lambda: compile_proxyless(model)))
        for version in served_versions(model):
            resources += self._assignment_of(grpc_cluster(model, version), model.name, version, endpoints, node)
        return resources

    def _secret(self, secret: Secret, name: str) -> Resource:
        return self._secrets.get(name, secret, lambda: compile_secret(secret, name))


def _place(node: Locality, *versions: Version) -> Locality:
    """Return the locality of the nodes that get the clusters of these versions.

    It matters only for DNS names in several localities.
    """
    return node if any(v.has_dns_endpoints and spread(v, None) for v in versions) else NOWHERE
