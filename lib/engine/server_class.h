#pragma once

#include <optional>
#include <string_view>

#include "lib/model/json_view.h"
#include "lib/model/model_spec.h"

// What a server's model classes take is data: schemas/engines/ENGINE.json, embedded at build, and
// the files of families (schemas/models/*.json, --model-spec), which may bring their own classes,
// so that a family with its servers' classes is one file.
//   schemas/engines/ENGINE.json   {.., "classes": [{"name": "GptOssForCausalLM", "families":
//                                 ["gpt_oss"], ..}, ..]}
//   a family's file               {.., "engines": {ENGINE: [{"name": "NewMoeForCausalLM", ..}]}}
// The other keys of a class are the engine's: schemas/engines/ENGINE.schema.json explains them.
namespace moelora {

// The class that the server builds for a base: one that the family's file brings for this engine
// (the base's architecture, else the first), else one of the engine's file (the architecture, else
// the first that lists the family). nullopt when neither says anything of this base. Refers to
// `spec`, or to the embedded file. Throws Error for a family's file that names an engine that has
// no classes.
std::optional<JsonView> find_server_class(std::string_view engine, const ModelSpec& spec);

// schemas/engines/ENGINE.json: what holds for all classes of the engine. REQUIRES that it exists.
JsonView engine_facts(std::string_view engine);

}  // namespace moelora
