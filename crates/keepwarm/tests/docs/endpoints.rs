//! The page about the API names each endpoint, and none that is not there.

use std::collections::BTreeSet;

use super::{read, root};

#[test]
fn the_page_of_the_api_has_every_endpoint_and_no_other() {
    let page = read(&root().join("docs/control/api.md"));
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(request, _)| request);
    let named: BTreeSet<String> = rows.filter(|request| request.contains(" /")).map(str::to_owned).collect();
    let table = keepwarm_control::endpoints();
    let there: BTreeSet<String> =
        table.iter().map(|endpoint| format!("{} {}", endpoint.method, endpoint.path)).collect();
    let (missing, gone): (Vec<_>, Vec<_>) = (there.difference(&named).collect(), named.difference(&there).collect());
    assert!(missing.is_empty() && gone.is_empty(), "not on the page: {missing:?}; not there: {gone:?}");
}
