//! The two machines against each other: scripts, kills at every record, and chance.

mod chaos;
mod forgetting;
mod growth;
mod hostile;
mod kills;
mod live;
mod scripts;
mod scripts_of_ends;
mod world;
