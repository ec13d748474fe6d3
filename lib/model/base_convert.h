#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/progress.h"
#include "lib/base/tensor.h"
#include "lib/io/file.h"
#include "lib/model/model_spec.h"

// The routed experts of a base checkpoint: taken out, converted, and verified.
namespace moelora {

// ---- expert_tensors.cpp ----

// The routed experts of one layer, however the checkpoint stores them, as lazy tensors of one
// form: gate and up [E, I, in], down [E, in, I]; biases [E, rows]. `gate` is absent from both maps
// when experts are not gated, `biases` is empty without biases.
struct ExpertLayer {
  int layer = 0;
  bool numbered = false, mxfp4 = false;  // as they were found
  std::map<Projection, Tensor> weights, biases;
};

struct SplitExperts {
  std::vector<ExpertLayer> experts;  // by layer
  TensorMap rest;                    // every other tensor
};

// Takes the experts of all layers, layers behind the last one (multi-token prediction) included,
// out of a checkpoint, in whichever storage each layer has: the hub's, that of memory, MXFP4 blocks
// and scales of either, or per expert. Throws Error at `where`: an expert's tensor is missing, has
// another shape than the config says, or is there beside those that are understood (FP8 scales).
SplitExperts split_experts(const TensorMap& tensors, const ModelSpec& spec,
                           const std::string& where);

// Which side of a layer's batched experts is in. transformers 5 turns the parameters of some
// families when it loads them and not back when it saves them (huggingface/transformers 47031), so
// that both forms exist under the same names: the shapes tell, those of one projection at least.
// The storage's own where no tensor tells.
ExpertAxes axes_in(const TensorMap& tensors, const ModelSpec& spec, const ExpertStorage& storage,
                   int layer);

// The layer's tensors as `storage` names and orients them.
void add_experts(const ExpertLayer& experts, const ModelSpec& spec, const ExpertStorage& storage,
                 TensorMap& out);

// ---- base_convert.cpp ----

enum class ExpertForm : uint8_t {
  per_expert,  // a 2-D weight per expert, [out, in], gate and up apart
  fused,       // batched parameters, as the family's hub files (or transformers 5) have them
};

struct BaseConversionReport {
  std::string family, from, to;       // "MXFP4", "batched", "per expert" (several joined by ", ")
  int64_t expert_layers = 0;          // layers whose experts were rewritten
  int64_t tensors = 0;                // of the output
  uint64_t bytes = 0;                 // of its tensors
  int64_t verified = 0;               // tensors and expert matrices found equal; 0 without verify
  std::vector<std::string> changes;   // what changed bits: "decode MXFP4 to BF16 (exact)", ...
  std::vector<std::string> files;     // written, in order
  std::vector<std::string> warnings;  // about the input's weights (lib/io/weights.h)
  std::vector<std::string> left_out;  // of the input folder: other weights, large files, folders
  std::vector<std::string> notes;     // who cannot load the output, what was not copied; for people
  std::string left_behind;            // what OutputFolder::commit says
};

// Part `number` of `count`, from 1.
struct WhichPart {
  int number = 1, count = 1;
};

// `lora-convert base IN OUT`: rewrites how a base checkpoint stores its routed experts. Everything
// else passes through bit by bit; tokenizer and other small files are carried along; config.json
// loses its quantization_config when MXFP4 was decoded and gains {"moelora": {"experts": FORM,
// "files": [...]}}.
struct BaseConversion {
  std::string in;   // a model folder, or a hub name found in the local cache
  std::string out;  // a folder that appears complete or not at all
  ExpertForm to = ExpertForm::per_expert;

  // Casts every F32, F16 and F64 tensor to BF16, except correction biases of routers
  // (e_score_correction_bias), which models keep in F32. MXFP4 becomes BF16 in any case.
  bool to_bf16 = false;

  // Writes these layers only (first and last, from 0, both inclusive), beside what is in no layer:
  // a cut for tests and benchmarks, not a model that runs.
  std::optional<std::pair<int, int>> layers;

  // Writes one part of the output, for several machines: each layer is in one part, neighbors
  // together, layers behind the last one with the last; what is in no layer, and the other files of
  // the folder, are in the first, whose share of the layers is never the larger one. The tensors of
  // all parts together are those of a conversion in one. config.json is the whole's but for
  // {"moelora": {"part": [NUMBER, COUNT], "files": [...]}}; conversion.json lists the part's
  // tensors with their digests (lib/io/conversion_report.h), for what puts the parts together
  // (tools/python/moelora/fleet). At most as many parts as layers; not together with `layers`.
  std::optional<WhichPart> part;

  uint64_t max_shard_size = 0;  // 0: one file
  int threads = 0;              // 0: all cores
  bool verify = false;          // re-read the output and compare it with a second evaluation
  bool dry_run = false;         // all checks of the headers, nothing written
  bool force = false;           // replace an existing output
  bool durable = true;          // fsync
  Links links = Links::within;  // of weights and config
  std::vector<std::string> model_specs;

  JobControl job = {};

  // Called when all is written and before the output appears; what it throws leaves nothing.
  std::function<void(const BaseConversionReport& report)> ready = {};
};

// Throws Error when the input is not a base model that is understood, has nothing to convert, or
// the output cannot be written; and, with `verify`, when what was written is not what it should be,
// before it is published.
BaseConversionReport convert_base(const BaseConversion& conversion);

// ---- base_verify.cpp: the second evaluation of --verify ----

// A weight matrix or a bias of one expert, row-major.
struct ExpertMatrix {
  DType dtype = DType::BF16;
  std::vector<std::byte> bytes;
};

struct WhichExpert {
  int layer;
  int64_t expert;
  Projection projection;  // gate, up or down
};

// Picks single experts out of a checkpoint by plain index arithmetic, whichever storage it has:
// slow, simple, and sharing nothing with the lazy views of split_experts(), whose results are
// compared with it. Refers to its arguments.
class PlainExperts {
 public:
  PlainExperts(const TensorMap& tensors, const ModelSpec& spec) : tensors_(tensors), spec_(spec) {}

  bool has_layer(int layer) const;

  // [out, in]; [out]. nullopt when the checkpoint has no such tensor.
  std::optional<ExpertMatrix> weight(const WhichExpert& which) const { return find(which, false); }
  std::optional<ExpertMatrix> bias(const WhichExpert& which) const { return find(which, true); }

 private:
  std::optional<ExpertMatrix> find(const WhichExpert& which, bool bias) const;
  std::optional<ExpertMatrix> numbered(const ExpertStorage& storage, const WhichExpert& which,
                                       bool bias) const;
  std::optional<ExpertMatrix> batched(const ExpertStorage& storage, const WhichExpert& which,
                                      bool bias) const;
  std::vector<std::byte> decoded(const std::string& name, int64_t expert) const;

  const TensorMap& tensors_;
  const ModelSpec& spec_;
};

// Compares a converted checkpoint, read back from disk, with the one it was made from, by a second
// way of evaluating that shares nothing with the conversion: every expert's gate, up and down
// matrix (and bias) is picked out of either by plain index arithmetic and the one-value-at-a-time
// MXFP4 decoder; every other tensor is compared byte by byte, after the cast where its dtype
// differs. Returns how many matrices, biases and tensors were compared.
// Throws Error at "`where`: TENSOR" for the first that differs, or that only one of them has, but
// for tensors of `in` that `out` left out with a whole layer (--layers, --part).
int64_t verify_base(const TensorMap& in, const TensorMap& out, const ModelSpec& spec, int threads,
                    const std::string& where);

}  // namespace moelora
