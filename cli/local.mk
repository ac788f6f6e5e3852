# cli: the hull command, a client of the control API; a library of its parts for the unit tests.
noinst_LIBRARIES += libhull-cli.a
libhull_cli_a_SOURCES = \
	cli/args.c cli/args.h \
	cli/archive.c cli/archive.h \
	cli/bar.c cli/bar.h \
	cli/depends.c \
	cli/diff.c cli/diff.h \
	cli/failure.c cli/failure.h \
	cli/health.c \
	cli/help.c \
	cli/host_path.c cli/host_path.h \
	cli/manifest.c cli/manifest.h \
	cli/mount.c cli/mount.h \
	cli/output.c cli/output.h \
	cli/patch.c \
	cli/recipe.c cli/recipe.h \
	cli/spec.c cli/spec.h \
	cli/sse.c cli/sse.h \
	cli/subprocess.c cli/subprocess.h \
	cli/top_rows.c cli/top_rows.h \
	cli/yaml.c cli/yaml.h \
	cli/yaml_read.c cli/yaml_read.h

bin_PROGRAMS += hull
hull_SOURCES = \
	cli/apply.c \
	cli/audit.c \
	cli/client.c cli/client.h cli/client_private.h \
	cli/collection.c cli/collection.h \
	cli/commands.h \
	cli/completion.c \
	cli/context.c cli/context.h \
	cli/context_commands.c \
	cli/context_file.c cli/context_file.h \
	cli/certificate.c \
	cli/cp.c \
	cli/events.c \
	cli/exec.c \
	cli/follow.c cli/follow.h \
	cli/host.c \
	cli/image.c \
	cli/image_build.c cli/image_build.h \
	cli/image_stages.c \
	cli/machine.c cli/machine.h \
	cli/machine_list.c \
	cli/main.c \
	cli/manifest_strip.c \
	cli/network.c \
	cli/operands.c cli/operands.h \
	cli/operation.c cli/operation.h \
	cli/plan.c cli/plan.h \
	cli/project.c \
	cli/request.c cli/request.h \
	cli/run.c \
	cli/secret.c \
	cli/session.c cli/session.h \
	cli/suggest.c cli/suggest.h \
	cli/top.c \
	cli/transfer.c cli/transfer.h \
	cli/update.c \
	cli/upgrade.c cli/upgrade.h \
	cli/upload.c \
	cli/wait.c \
	cli/volume.c \
	cli/webhook.c
hull_LDADD = libhull-cli.a libhull-common.a $(JANSSON_LIBS) $(LIBCURL_LIBS) $(NETTLE_LIBS) $(YAML_LIBS)

# The script that ends both stages of an image build, as a string.
EXTRA_DIST += cli/image-hook.sh
BUILT_SOURCES += cli/image_hook.h
CLEANFILES += cli/image_hook.h
nodist_hull_SOURCES = cli/image_hook.h
cli/image_hook.h: cli/image-hook.sh
	$(AM_V_GEN)$(MKDIR_P) cli && { echo 'static const char image_hook[] ='; \
	$(SED) -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $(srcdir)/cli/image-hook.sh; \
	echo ';'; } > $@.tmp && mv $@.tmp $@
