//! One step of SGD and of AdamW, as PyTorch defines them.

/// SGD with momentum (no dampening, no Nesterov) and L2 weight decay (torch.optim.SGD).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub rate: f64,
    /// Fraction of the velocity kept.
    pub momentum: f64,
    /// Decay, added to the gradient.
    pub weight_decay: f64,
}

impl Sgd {
    /// g <- gradient + decay p; v <- momentum v + g; p <- p - rate v. `velocity` starts at zero.
    pub fn step(&self, parameter: &mut [f64], gradient: &[f64], velocity: &mut [f64]) {
        assert_eq!(parameter.len(), gradient.len());
        assert_eq!(parameter.len(), velocity.len());
        for ((p, gradient), v) in parameter.iter_mut().zip(gradient).zip(velocity) {
            let g = gradient + self.weight_decay * *p;
            *v = self.momentum * *v + g;
            *p -= self.rate * *v;
        }
    }
}

/// AdamW (torch.optim.AdamW, no amsgrad).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub rate: f64,
    /// Decay of the mean of the gradient.
    pub beta1: f64,
    /// Decay of the mean of its square.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Decoupled decay: p <- (1 - rate decay) p.
    pub weight_decay: f64,
}

/// State of AdamW for one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamWState {
    /// Steps done.
    pub steps: i32,
    /// Running mean of the gradient.
    pub mean: Vec<f64>,
    /// Running mean of its square.
    pub square: Vec<f64>,
}

impl AdamWState {
    /// State before the first step.
    pub fn new(size: usize) -> Self {
        Self { steps: 0, mean: vec![0.0; size], square: vec![0.0; size] }
    }
}

impl AdamW {
    /// One step with bias correction of both means.
    pub fn step(&self, parameter: &mut [f64], gradient: &[f64], state: &mut AdamWState) {
        assert_eq!(parameter.len(), gradient.len());
        assert_eq!(parameter.len(), state.mean.len());
        state.steps += 1;
        let correction1 = 1.0 - self.beta1.powi(state.steps);
        let correction2 = 1.0 - self.beta2.powi(state.steps);
        for (i, g) in gradient.iter().enumerate() {
            parameter[i] *= 1.0 - self.rate * self.weight_decay;
            state.mean[i] = self.beta1 * state.mean[i] + (1.0 - self.beta1) * g;
            state.square[i] = self.beta2 * state.square[i] + (1.0 - self.beta2) * g * g;
            let mean = state.mean[i] / correction1;
            let square = state.square[i] / correction2;
            parameter[i] -= self.rate * mean / (square.sqrt() + self.eps);
        }
    }
}
