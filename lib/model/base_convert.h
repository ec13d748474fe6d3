#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace moelora {

enum class ExpertForm : uint8_t {
  per_expert,  // a 2-D weight per expert, [out, in], gate and up apart
  fused,       // batched parameters, as the family's hub files (or transformers 5) have them
};

// `lora-convert base IN OUT`: rewrites how a base checkpoint stores its routed experts. Everything
// else passes through bit by bit; tokenizer and other small files are carried along; config.json
// loses its quantization_config when MXFP4 was decoded and gains {"moelora": {"experts": FORM}}.
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

  uint64_t max_shard_size = 0;  // 0: one file
  int threads = 0;              // 0: all cores
  bool verify = false;          // re-read the output and compare it with a second evaluation
  bool dry_run = false;         // all checks of the headers, nothing written
  bool force = false;           // replace an existing output
  bool durable = true;          // fsync
  std::vector<std::string> model_specs;
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
};

// Throws Error when the input is no base model that is understood, has nothing to convert, or the
// output cannot be written; and, with `verify`, when what was written is not what it should be,
// before it is published.
BaseConversionReport convert_base(const BaseConversion& conversion);

}  // namespace moelora
