#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/engine/python_text.h"
#include "lib/engine/served_adapter.h"
#include "lib/engine/sglang/load/weights.h"

namespace moelora::sglang {

// An adapter in the server's memory (LoRAConfig and LoRAAdapter), and what happened to it on the
// way. It goes on after a refusal where the server would stop, so that more can be told; `alive` is
// false where nothing more can.
struct CpuAdapter {
  std::string name;       // "my-adapter"
  bool at_start = false;  // given with --lora-paths: the server wraps what load raises
  bool alive = true;

  int64_t r = 0;
  double alpha = 0;
  Json config;
  bool all_targets = false;  // target_modules is "all" or "all-linear"
  NameSet targets;           // normalised
  NameSet target_names;      // as the config has them

  std::vector<std::string> files;
  std::vector<Source> sources;
  std::vector<LayerWeights> layers;
  LayerWeights embeddings;  // embed_tokens and lm_head

  Journal journal;
  struct Loss {
    const Cause* cause = nullptr;
    std::string_view detail;
  };
  std::vector<bool> refused;  // by source: an exception is about it
  std::vector<Loss> lost;     // by source: why it is dropped; no cause where it is not

  // What was told so far, to tell it again from here.
  struct Told {
    Journal journal;
    std::vector<bool> refused;
    std::vector<Loss> lost;
  };
  Told told() const { return {journal, refused, lost}; }
  void tell_again(const Told& before) {
    journal = before.journal;
    refused = before.refused;
    lost = before.lost;
  }

  double scale() const { return alpha / static_cast<double>(r); }

  // An exception of the server, about `about` (empty: the adapter as a whole).
  struct Raise {
    const Cause* cause = nullptr;
    std::string_view stage;
    std::string_view type;
    std::string text;
    std::string detail;
    bool first_use = false;
  };
  void raise(const Raise& raise, const std::vector<int32_t>& about = {});
  // Whether an exception of this cause was told before; then `about` is added to it.
  bool raised_before(const Cause* cause, const std::vector<int32_t>& about);

  // The source of this name in the files (the last of them), -1 for none.
  int32_t find_source(const std::string& source) const;
  // The other factor of a pair: lora_B of lora_A and the reverse; -1 for none.
  int32_t partner_of(int32_t source) const;

  // The server drops these without a word.
  void lose(const std::vector<int32_t>& about, const Cause* cause, std::string_view detail);
  void lose(const std::vector<Block>& about, const Cause* cause, std::string_view detail);

 private:
  mutable std::unordered_map<std::string_view, int32_t> by_name_;  // made when asked for
};

namespace stage {
constexpr std::string_view kConfig = "read adapter_config.json";
constexpr std::string_view kValidate = "validate config";
constexpr std::string_view kRead = "read and normalise";
constexpr std::string_view kShapes = "shapes (target modules, rank)";
constexpr std::string_view kDetect = "detect shared outer";
constexpr std::string_view kWrap = "wrap modules";
constexpr std::string_view kPool = "pool init";
constexpr std::string_view kHandOver = "hand buffers to layers";
constexpr std::string_view kLoad = "load to buffer";
}  // namespace stage

}  // namespace moelora::sglang
