#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "lib/check/deployment.h"

namespace moelora {

// A base model as it was found, or why it was not.
struct OpenedBase {
  std::optional<BaseModel> model;  // nullopt: none was named, or `error`
  std::optional<Error> error;
  std::string class_name;  // of a base whose family is not known: "Qwen3ForCausalLM"

  // Of its weights, read when they are first asked for (threads may ask after that): null where
  // they are not at hand. `note` then says so. Throws as read_base_headers does.
  const std::shared_ptr<const BaseHeaders>& headers(std::string& note);

  // Puts all but the headers into a deployment.
  void give_to(Deployment& deployment) const;

 private:
  bool read_ = false;
  std::shared_ptr<const BaseHeaders> headers_;
  std::string note_;
};

// The base models of one run: each is opened and parsed once, however many adapters are of it.
class OpenedBases {
 public:
  explicit OpenedBases(const LoadOptions& load) : load_(load) {}

  // The one that --base names. Throws Error where it cannot be read; that its family is not known
  // is in the result.
  OpenedBase& given();

  // The one that an adapter names in base_model_name_or_path; "" for none. Throws MachineError.
  OpenedBase& named(const std::string& name);

  // The one that is to be taken for an adapter: that of --base, else the one it names.
  OpenedBase& of(const Subject& adapter);

 private:
  const LoadOptions& load_;
  std::optional<OpenedBase> given_;
  std::map<std::string, OpenedBase> named_;
};

// What an adapter says its base is: base_model_name_or_path, "" where that is no text.
std::string named_base(const Subject& adapter);

}  // namespace moelora
