//! placeholder
use super::result::DemoResult;
pub(super) fn page(result: &DemoResult) -> String {
    format!("{}", result.version)
}
