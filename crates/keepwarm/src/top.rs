//! x
#[derive(Debug, Clone, clap::Args)]
/// x
pub struct TopArgs {}
/// x
pub fn main(_: &TopArgs) -> anyhow::Result<crate::cli::Exit> {
    Ok(crate::cli::Exit::Ok)
}
