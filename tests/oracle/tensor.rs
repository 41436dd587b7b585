//! A dense array of f64, last axis fastest.

/// A dense array; `data.len()` is the product of `shape`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Extents, slowest axis first.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub data: Vec<f64>,
}

impl Tensor {
    /// Takes `data` as an array of the given shape. Panics if the sizes disagree.
    pub fn new(shape: &[usize], data: Vec<f64>) -> Self {
        let size: usize = shape.iter().product();
        assert_eq!(size, data.len(), "shape {shape:?} does not fit the data");
        Self { shape: shape.to_vec(), data }
    }

    /// All zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self::new(shape, vec![0.0; shape.iter().product()])
    }

    /// The five extents of an activation `[T, N, C, H, W]`.
    pub fn dims5(&self) -> [usize; 5] {
        self.shape[..].try_into().expect("an activation [T, N, C, H, W]")
    }

    /// Channel of the element at `offset` of an activation `[T, N, C, H, W]`.
    pub fn channel(&self, offset: usize) -> usize {
        let [_, _, channels, height, width] = self.dims5();
        offset / (height * width) % channels
    }

    /// Sum over all axes but the channel, `[C]`, of an activation `[T, N, C, H, W]`.
    pub fn sum_per_channel(&self) -> Vec<f64> {
        let mut sum = vec![0.0; self.dims5()[2]];
        for (offset, value) in self.data.iter().enumerate() {
            sum[self.channel(offset)] += value;
        }
        sum
    }

    /// Adds a tensor of the same shape.
    pub fn add(&mut self, other: &Tensor) {
        assert_eq!(self.shape, other.shape, "only equal shapes can be added");
        for (sum, x) in self.data.iter_mut().zip(&other.data) {
            *sum += x;
        }
    }

    /// Every value times `by`.
    pub fn times(&self, by: f64) -> Self {
        Self::new(&self.shape, self.data.iter().map(|x| x * by).collect())
    }

    /// `f` of every value and the value of `other` at the same place.
    pub fn with(&self, other: &Tensor, f: impl Fn(f64, f64) -> f64) -> Self {
        assert_eq!(self.shape, other.shape, "values at the same place");
        Self::new(&self.shape, self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect())
    }
}
