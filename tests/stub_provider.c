/* A provider library for tests: it has the devices of a real one, and does what a file says when it is loaded or opened.
   REAL_PROVIDER names the real library, STUB_DOES the file: "crash at load", "hang at load", "crash", "hang", "gone" (when a
   session is opened), "crash at run", "hang at run" (when it computes for the first time), or nothing. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void Status;
/* The first members of OrtApiBase, OrtApi and OrtEpFactory in onnxruntime_c_api.h and onnxruntime_ep_c_api.h. */
typedef struct { const void *(*get_api)(uint32_t); const char *(*version)(void); } ApiBase;
typedef struct { Status *(*create_status)(int, const char *); } Api;
typedef struct { uint32_t supported; void *name, *vendor, *devices; Status *(*create_ep)(); } Factory;
/* OrtEp: OnRunStart is its eighth function. */
typedef struct { uint32_t supported; void *functions[7]; Status *(*on_run_start)(); } Ep;
typedef Status *(*CreateFactories)(const char *, const ApiBase *, const void *, Factory **, size_t, size_t *);

static const Api *api;
static Status *(*real_create_ep)(), *(*real_run_start)();

static const char *does(void) {
  static char text[64];
  FILE *file = fopen(getenv("STUB_DOES"), "r");
  text[0] = 0;
  if (file) {
    if (!fgets(text, sizeof text, file)) text[0] = 0;
    fclose(file);
  }
  return text;
}

static Status *run_start(void *ep, const void *options) {
  const char *what = does();
  if (!strcmp(what, "crash at run")) abort();
  if (!strcmp(what, "hang at run")) for (;;) sleep(1);
  return real_run_start ? real_run_start(ep, options) : NULL;
}

static Status *create_ep(void *a, void *b, void *c, size_t d, void *e, void *f, Ep **ep) {
  Status *status;
  const char *what = does();
  if (!strcmp(what, "crash")) abort();
  if (!strcmp(what, "hang")) for (;;) sleep(1);
  if (!strcmp(what, "gone")) return api->create_status(1, "the device is lost");
  status = real_create_ep(a, b, c, d, e, f, ep);
  if (!status && *ep && (*ep)->on_run_start != (void *)run_start) {
    real_run_start = (*ep)->on_run_start;
    (*ep)->on_run_start = (void *)run_start;
  }
  return status;
}

Status *CreateEpFactories(const char *name, const ApiBase *base, const void *logger, Factory **found, size_t most,
                          size_t *count) {
  void *library;
  Status *status;
  if (!strcmp(does(), "crash at load")) abort();
  if (!strcmp(does(), "hang at load")) for (;;) sleep(1);
  library = dlopen(getenv("REAL_PROVIDER"), RTLD_NOW | RTLD_LOCAL);
  if (!library) { fputs(dlerror(), stderr); abort(); }
  api = base->get_api(22);
  status = ((CreateFactories)dlsym(library, "CreateEpFactories"))(name, base, logger, found, most, count);
  if (!status && *count) {
    real_create_ep = found[0]->create_ep;
    found[0]->create_ep = create_ep;
  }
  return status;
}

Status *ReleaseEpFactory(Factory *factory) { (void)factory; return NULL; }
