//! Which steps a step's work names: those whose images it takes, built or staged.

use super::{CommandImage, CommandWork, PushedFrom, Work};

impl Work {
    /// The indexes of the steps whose images the work takes; one may be named more than once.
    pub fn image_steps(&self) -> Vec<usize> {
        let mut steps = Vec::new();
        // The one walk over all links is the one that changes them.
        self.clone().each_image_step(|step| steps.push(*step));
        steps
    }

    /// Gives these steps other indexes.
    pub(super) fn move_image_steps(&mut self, to: impl Fn(usize) -> usize) {
        self.each_image_step(|step| *step = to(*step));
    }

    fn each_image_step(&mut self, mut visit: impl FnMut(&mut usize)) {
        match self {
            Self::Push(push) => push.names.iter_mut().for_each(|name| match &mut name.from {
                PushedFrom::Built(step) | PushedFrom::Staged(step) => visit(step),
                PushedFrom::Index(parts) => parts.iter_mut().for_each(|part| {
                    visit(&mut part.staged_by);
                    visit(&mut part.built_by);
                }),
            }),
            Self::Build(build) => {
                build.own_bases.iter_mut().for_each(|(_, built_by)| visit(built_by));
                build.staged_bases.iter_mut().for_each(|base| visit(&mut base.staged_by));
            }
            Self::Command(CommandWork { image: CommandImage::Built { step }, .. }) => visit(step),
            Self::Command(_) | Self::Prepare(_) => {}
        }
    }
}
