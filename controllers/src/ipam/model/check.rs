//! What must never be, and what must be when nothing more happens by itself.

use super::server::{Kind, Object};
use super::state::State;
use super::{NAMES, Scene};

impl State {
    /// Published: the status of a claim names an address, and that is there.
    pub fn check_values(&self) -> Result<(), String> {
        let published = |name: usize| self.server.claim(name).filter(|claim| claim.is_bound()).and(self.server.address(name));
        for one in self.server.names() {
            for other in self.server.names().skip(one + 1) {
                if let (Some(this), Some(that)) = (published(one), published(other))
                    && this.held() == that.held()
                {
                    return Err(format!("{} is published twice, for {} and {}", this.held(), NAMES[one], NAMES[other]));
                }
            }
        }
        Ok(())
    }

    /// An address that is published stays as long as its claim lives, and then goes before it.
    pub fn check_removal(&self, kind: Kind, object: &Object) -> Result<(), String> {
        let name = object.name();
        match kind {
            Kind::Addresses => {
                let alive = self.server.claim(name).filter(|claim| claim.is_bound() && !claim.is_deleting());
                match alive.filter(|claim| claim.uid() == object.owner()) {
                    Some(_) => Err(format!("the published address of {} was removed while its claim lives", NAMES[name])),
                    None => Ok(()),
                }
            }
            Kind::Claims => match self.server.published(object) {
                Some(_) => Err(format!("{} went before the address that was published for it", NAMES[name])),
                None => Ok(()),
            },
        }
    }

    /// What must hold when nothing more can happen by itself.
    pub fn check_rest(&self, scene: &Scene) -> Result<(), String> {
        let free = usize::from(scene.values)
            - self.server.names().filter(|name| self.server.address(*name).is_some()).count().min(scene.values.into());
        for name in self.server.names() {
            let (claim, address) = (self.server.claim(name), self.server.address(name));
            match (claim, address) {
                (Some(claim), _) if scene.grace && claim.is_deleting() && self.server.published(claim).is_some() => {}
                (Some(claim), _) if claim.is_deleting() => return Err(format!("{} is deleting for ever", NAMES[name])),
                (Some(claim), Some(_)) if !claim.is_bound() => {
                    return Err(format!("{} has an address that is not published", NAMES[name]));
                }
                (Some(claim), None) if claim.is_bound() => {
                    return Err(format!("{} names an address that is not there", NAMES[name]));
                }
                (Some(claim), None) if claim.reason() != "PoolExhausted" => return Err(format!("{} was forgotten", NAMES[name])),
                (Some(_), None) if free > 0 => return Err(format!("{} waits although there is room", NAMES[name])),
                (None, Some(_)) if scene.budget.kills == 0 => {
                    return Err(format!("the address {} has no claim", NAMES[name]));
                }
                _ => {}
            }
        }
        for process in &self.processes {
            let reserved: usize = process.world.pools.iter().map(|(_, pool)| pool.ledger.counts().reserved).sum();
            if reserved > 0 || process.world.has_binds_in_flight() {
                return Err("a reservation is left".to_owned());
            }
        }
        Ok(())
    }
}
