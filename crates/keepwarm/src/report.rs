//! x
#[derive(Debug, Clone, clap::Args)]
/// x
pub struct ReportArgs {}
/// x
pub fn main(_: &ReportArgs) -> anyhow::Result<crate::cli::Exit> {
    Ok(crate::cli::Exit::Ok)
}
