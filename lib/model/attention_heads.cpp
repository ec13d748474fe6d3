#include "lib/model/attention_heads.h"

#include <fmt/core.h>

#include "lib/base/error.h"

namespace moelora {

AttentionHeads attention_heads(const ModelSpec& spec) {
  const AttentionHeads out{spec.heads, spec.kv_heads, spec.head_dim};
  if (out.heads < 1 || out.kv_heads < 1 || out.head_dim < 1)
    throw Error(spec.model_type,
                fmt::format("the heads of its attention are not known: {}, {} of keys and values, "
                            "each {} wide",
                            out.heads, out.kv_heads, out.head_dim),
                {"write the family down with lora-convert spec, with the values \"heads\", "
                 "\"kv_heads\" and \"head_dim\", and pass the file with ",
                 Option::model_spec});
  return out;
}

}  // namespace moelora
