//! The gateway between real clients and an origin: what is passed on, what is refused, and what becomes of both when one goes wrong.

mod bodies;
mod forms;
mod limits;
mod passed;
mod peers;
mod reload;
mod setup;
mod users;
