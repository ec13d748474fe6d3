#pragma once

#include <string_view>

// The rules (lib/check/rules) that explain what vLLM does: causes of plan events.
namespace moelora::vllm::cause {

inline constexpr std::string_view kLayoutClass = "layout-class-mismatch";
inline constexpr std::string_view kGptOssMixed = "gpt-oss-mixed-mode";
inline constexpr std::string_view kFusedNames = "fused-names";
inline constexpr std::string_view kUnsupportedName = "unsupported-name";
inline constexpr std::string_view kIncompleteExperts = "incomplete-experts";
inline constexpr std::string_view kUnequalRanks = "unequal-ranks";
inline constexpr std::string_view kRankOverLimit = "vllm-rank-over-limit";
inline constexpr std::string_view kMoeRank128 = "moe-rank-128";
inline constexpr std::string_view kPatterns = "vllm-patterns-ignored";
inline constexpr std::string_view kRslora = "rslora-experts";
inline constexpr std::string_view kRouter = "vllm-router-target";
inline constexpr std::string_view kEmbedding = "embedding-target";
inline constexpr std::string_view kModulesToSave = "modules-to-save";
inline constexpr std::string_view kDora = "vllm-dora";
inline constexpr std::string_view kBias = "bias";
inline constexpr std::string_view kPartialCopy = "silent-partial-copy";
inline constexpr std::string_view kOldBOrder = "b-order-old-engine";
inline constexpr std::string_view kNoOp = "silent-no-op";
inline constexpr std::string_view kFullyShardedRank = "fully-sharded-rank";
inline constexpr std::string_view kEpOptions = "ep-options";
inline constexpr std::string_view kPadded = "padded-partition";
inline constexpr std::string_view kSharedOuter = "vllm-shared-outer-flag";
inline constexpr std::string_view kTensorLoader = "tensor-loader";
inline constexpr std::string_view kTpHides = "tp-hides-shape";
inline constexpr std::string_view kMoePath = "wrong-moe-path";
inline constexpr std::string_view kBaseLayerAlone = "base-layer-alone";
inline constexpr std::string_view kClassWithoutLora = "class-without-lora";
inline constexpr std::string_view kDeclaredBOrder = "b-order-declared-other";
inline constexpr std::string_view kHalfPair = "half-pair";
inline constexpr std::string_view kConfig = "config-refused";
inline constexpr std::string_view kShape = "shape-refused";

}  // namespace moelora::vllm::cause
