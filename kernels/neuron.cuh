// The integrate-and-fire neuron: the only CUDA copy of its mathematics, operation for operation that of
// src/neuron.rs, so that equal currents give equal spikes.
//
//   H[t] = leak V[t-1] + gain I[t]      S[t] = H[t] >= threshold      V[-1] = 0
//   soft reset: V = H - threshold S     hard reset: V = S ? v_reset : H
//
// Backward, from the last step to the first, with g the surrogate slope at H[t]:
//
//   G_H = G_S g + G_V dV/dH     G_I[t] = gain G_H     G_V[t-1] = leak G_H
#pragma once
#include "device.cuh"

struct Neuron {
    float leak, gain, threshold, v_reset;
    uint32_t hard, detach;  // 0 or 1
};
using NeuronConstants = Neuron;  // the host's name

DEVICE float charge(const Neuron& n, float v, float current) { return fmaf(n.leak, v, n.gain * current); }

DEVICE float reset(const Neuron& n, bool hard, float h, bool spike) {
    const float after = hard ? n.v_reset : h - n.threshold;
    return spike ? after : h;
}

// dV/dH if the kind of reset is known at compile time …
template <bool HARD, bool DETACH>
DEVICE float reset_derivative(const Neuron& n, float h, bool spike, float g) {
    const float kept = HARD && spike ? 0.0f : 1.0f;
    if (DETACH) return kept;
    return fmaf(HARD ? n.v_reset - h : -n.threshold, g, kept);
}

// … and if it is chosen at run time: the same without a branch, because 0 g adds nothing.
DEVICE float reset_derivative(const Neuron& n, bool hard, bool detach, float h, bool spike, float g) {
    const float kept = hard && spike ? 0.0f : 1.0f, of_slope = hard ? n.v_reset - h : -n.threshold;
    return fmaf(detach ? 0.0f : of_slope, g, kept);
}

// One step backward: G_I from G_S; `g_v` becomes G_V of the step before.
DEVICE float step_back(const Neuron& n, float reset_derivative, float g, float g_s, float& g_v) {
    const float g_h = fmaf(g_s, g, g_v * reset_derivative);
    g_v = n.leak * g_h;
    return n.gain * g_h;
}

DEVICE float step_back(const Neuron& n, bool hard, bool detach, float h, bool spike, float g, float g_s, float& g_v) {
    return step_back(n, reset_derivative(n, hard, detach, h, spike, g), g, g_s, g_v);
}
