#pragma once

#include <memory>
#include <string>

#include "lib/forward/family_section.h"
#include "lib/forward/layer_pass.h"

namespace moelora {

// What mixes the tokens of a sequence in a layer: attention, or something linear in its place.
class Mixer {
 public:
  virtual ~Mixer() = default;
  // x [tokens, hidden], after the layer's norm; the result is added to the residual.
  virtual Matrix<float> run(const LayerPass<float>& pass, const Matrix<float>& x) const = 0;
  virtual Matrix<double> run(const LayerPass<double>& pass, const Matrix<double>& x) const = 0;
};

// A Mixer whose class has `compute` for both: template <class T> Matrix<T> compute(pass, x) const.
template <class Own>
class MixerOf : public Mixer {
 public:
  Matrix<float> run(const LayerPass<float>& pass, const Matrix<float>& x) const override {
    return static_cast<const Own*>(this)->compute(pass, x);
  }
  Matrix<double> run(const LayerPass<double>& pass, const Matrix<double>& x) const override {
    return static_cast<const Own*>(this)->compute(pass, x);
  }
};

// Of an item of "mixers", by its "kind". `longest`: of the sequences. Throws Error at the family's
// file or the config.
using MakeMixer = std::unique_ptr<Mixer> (*)(const FamilySection& section, int64_t longest);

std::unique_ptr<Mixer> make_mixer(const FamilySection& section, int64_t longest);

// The kinds, each in a file of its own.
std::unique_ptr<Mixer> make_softmax_attention(const FamilySection& section, int64_t longest);
std::unique_ptr<Mixer> make_latent_attention(const FamilySection& section, int64_t longest);
std::unique_ptr<Mixer> make_gemma4_attention(const FamilySection& section, int64_t longest);
std::unique_ptr<Mixer> make_gated_delta(const FamilySection& section, int64_t longest);
std::unique_ptr<Mixer> make_mamba2(const FamilySection& section, int64_t longest);
std::unique_ptr<Mixer> make_short_conv(const FamilySection& section, int64_t longest);

}  // namespace moelora
