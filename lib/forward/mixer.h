#pragma once

#include <memory>
#include <string_view>

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

// A kind of mixer. Each is one file mixers/NAME.cpp that defines `const MixerKind NAME_mixer`; the
// folder is the registry. Its keys are described in schemas/model_spec.schema.json.
struct MixerKind {
  std::string_view id;  // the name of its file: "kind" of a family's mixer
  // Of an item of "mixers". `longest`: of the sequences. Throws Error at the family's file or the
  // config.
  std::unique_ptr<Mixer> (*make)(const FamilySection& section, int64_t longest);
};

// MixerKind::make of a class with that constructor.
template <class Own>
std::unique_ptr<Mixer> make_mixer_of(const FamilySection& section, int64_t longest) {
  return std::make_unique<Own>(section, longest);
}

// Every file of mixers/ as a symbol: softmax_mixer, ...
#define MOELORA_ENTRY(name) extern const MixerKind name##_mixer;
#include "mixers.inc"
#undef MOELORA_ENTRY

// By its "kind"; Error that names the nearest for an unknown one.
std::unique_ptr<Mixer> make_mixer(const FamilySection& section, int64_t longest);

}  // namespace moelora
