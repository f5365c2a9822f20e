//! Which routes' rules apply to a request that has more than one reading.
//!
//! A route is found by the path, the method, the query and the headers as they were sent. Upstreams may read these in
//! another way: they decode `%2F`, ignore case, take the method from `X-HTTP-Method-Override`, or the second of two
//! lines. If such an upstream would read a request as one for another route, the request must not bypass that route's
//! rules.
//!
//! **Rule.** The rules of every route that a reading leads to must allow the request. The verified token and the
//! authorizer's decision for one route count for another one only if both ask for the same tokens and the same
//! authorizer; if the other route asks for more, the request is refused.

use attache_authorization::{AccessPolicy, Facts, Truth};
use attache_config::model::AuthorizerUse;
use attache_http::{Client, without_parameters};
use attache_wire::RequestHead;

use crate::{CompiledRoute, RequestFacts, RouteTable};

impl RouteTable {
    /// Routes with other rules to which another reading of the request leads: a part of the request has more than one
    /// reading (`/open/..%2Fadmin`, `X-HTTP-Method-Override`, a header twice), so the rules of all these routes must
    /// allow it. Only such a request is checked twice.
    pub fn other_rules(
        &self,
        request: &RequestHead,
        client: &Client,
        found: &CompiledRoute,
    ) -> Vec<&CompiledRoute> {
        let Some(asked) = &self.asked_of_rules else { return Vec::new() };
        let access = Facts::of_request(request, client);
        if access.has_one_reading() && !asked.may_differ(request, &access) {
            return Vec::new();
        }
        self.rules_in_doubt(&access, request, client, found)
    }

    #[cold]
    fn rules_in_doubt(
        &self,
        access: &Facts<'_>,
        request: &RequestHead,
        client: &Client,
        found: &CompiledRoute,
    ) -> Vec<&CompiledRoute> {
        let rules = |route: &CompiledRoute| self.model.get(route.id.0)?.authorization.as_ref();
        let differs = |route: &CompiledRoute| {
            rules(route) != rules(found) && (route.authorization.is_some() || self.asks_more(route, found))
        };
        let Some(readings) = access.readings() else {
            // It could be any route.
            return self.routes.iter().filter(|route| differs(route)).collect();
        };
        let other_method = access.names_another_method();
        let mut others: Vec<&CompiledRoute> = Vec::new();
        let mut look = |path: &str| {
            let asked = RequestFacts { path, ..RequestFacts::of(request, client) };
            let mut find = |path: &str| {
                // All routes that it may be for, up to the first one that matches in every reading.
                self.http.find(asked.host.as_ref(), asked.port, |paths| {
                    paths.find(path, |candidate| {
                        let route = self.routes.get(candidate.route).filter(|_| candidate.holds(client))?;
                        let found = route.conditions.truth(&asked, other_method);
                        let is_new = others.iter().all(|other| other.id != route.id);
                        if found != Truth::No && differs(route) && is_new {
                            others.push(route);
                        }
                        (found == Truth::Yes).then_some(())
                    })
                });
            };
            let bare = without_parameters(path, self.policy);
            find(&bare);
            // For an upstream that doesn't know path parameters, `/me;x` is another path than `/me`.
            if *bare != *path {
                find(path);
            }
        };
        let own = request.uri.path();
        look(own);
        // A path without its last slash is not another reading: routes themselves say whether they match both.
        readings.iter().filter(|path| path.as_str() != own.trim_end_matches('/')).for_each(|path| look(path));
        others
    }

    /// True if one route asks for a token or an authorizer, and the other doesn't, or asks for another one: then the
    /// checks of the other route prove nothing here.
    pub fn asks_more(&self, route: &CompiledRoute, than: &CompiledRoute) -> bool {
        let jwt = |route: &CompiledRoute| {
            let own = route.authorization.as_ref().and_then(AccessPolicy::jwt).cloned();
            own.or_else(|| self.authorization.as_ref()?.jwt().cloned())
        };
        let external = |route: &CompiledRoute| {
            let own = route.authorization.as_ref().and_then(AccessPolicy::external).cloned();
            let external = own.or_else(|| self.authorization.as_ref()?.external().cloned());
            external.filter(|used| *used != AuthorizerUse::Off)
        };
        let token = jwt(route).is_some_and(|wanted| jwt(than) != Some(wanted));
        token || external(route).is_some_and(|asked| external(than) != Some(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::request;

    const ROUTES: &str = "listeners: { in: { bind: ':1', routes: [\n\
        { name: delete, match: { path: /orders/*, methods: DELETE }, to: app, authorization: { allow: [] } },\n\
        { name: root, match: { path: /t/*, headers: { x-tenant: root } }, to: app, authorization: { allow: [] } },\n\
        { name: others, match: { path: /n/*, headers: { x-tenant: '!root' } }, to: app, authorization: { allow: [] } },\n\
        { name: purge, match: { path: /q/*, query: { action: purge } }, to: app, authorization: { allow: [] } },\n\
        { name: me, match: { path: /users/me }, to: app },\n\
        { name: users, match: { path: /users/* }, to: app, authorization: { allow: [] } },\n\
        { name: rest, to: app } ] } }\n\
        upstreams: { app: 'http://a' }";

    fn others(method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<String> {
        let config = attache_config::parse(ROUTES, None, &|_| None).unwrap();
        let (table, client) = (RouteTable::new(&config.listeners[0]), Client::default());
        let request = request(method, target, headers);
        let found = table.find_http(&RequestFacts::of(&request, &client)).unwrap().route;
        let others = table.other_rules(&request, &client, found);
        others.iter().map(|route| route.name.to_string()).collect()
    }

    #[test]
    fn the_rules_of_both_routes_apply_if_a_method_header_or_parameter_has_two_readings() {
        for (method, target, headers, other) in [
            ("POST", "a/orders/1", &[("x-http-method-override", "DELETE")][..], "delete"),
            ("POST", "a/orders/1", &[("x-method-override", "delete")], "delete"),
            ("delete", "a/orders/1", &[], "delete"),
            ("POST", "a/Orders/1", &[("x-http-method", "DELETE")], "delete"),
            ("GET", "a/t/x", &[("x-tenant", "a, root")], "root"),
            ("GET", "a/n/x", &[("x-tenant", "root"), ("x-tenant", "a")], "others"),
            ("GET", "a/q/x?a=1;action=purge", &[], "purge"),
            ("GET", "a/q/x?Action=purge", &[], "purge"),
            ("GET", "a/q/x?action%5B%5D=purge", &[], "purge"),
            ("GET", "a/q/x?action[0]=purge", &[], "purge"),
            ("GET", "a/q/x?action=purge;x", &[], "purge"),
            ("GET", "a/users/me;x", &[], "users"),
            ("GET", "a/users/me;", &[], "users"),
        ] {
            assert_eq!(others(method, target, headers), [other], "{method} {target} {headers:?}");
        }
        for (method, target, headers) in [
            ("POST", "a/orders/1", &[("x-http-method-override", "POST")][..]),
            ("GET", "a/orders/1?action=purge", &[("x-tenant", "root, a")]),
            ("GET", "a/t/x", &[("x-tenant", "a, b"), ("x-tenant", "c")]),
            ("GET", "a/n/x", &[("x-tenant", "root"), ("x-tenant", "root")]),
            ("GET", "a/q/x?action=list&a=purge&b;c", &[]),
        ] {
            assert_eq!(others(method, target, headers), [""; 0], "{method} {target} {headers:?}");
        }
        // The found route itself has the rules, so no other rules are needed.
        assert_eq!(others("GET", "a/t/x", &[("x-tenant", "root"), ("x-tenant", "a")]), [""; 0]);
    }
}
