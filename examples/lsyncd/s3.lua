-- Uploads with the aws program, a few at a time; what fails is tried again.
settings{ nodaemon = true }

local bucket = "s3://bucket/backup"

sync{
	source = "/srv/source",
	delay = 0.2,
	maxProcesses = 4,
	onMove = true,

	init = function(event)
		spawn(event, "aws", "s3", "sync", "--delete", event.source, bucket)
	end,

	action = function(inlet)
		local event, event2 = inlet.getEvent()
		if event.etype == "Move" then
			spawnShell(event, 'aws s3 mv ' .. (event.isdir and "--recursive " or "") .. '"$1" "$2"',
				bucket .. "/" .. event.pathname, bucket .. "/" .. event2.pathname)
		elseif event.etype == "Delete" then
			spawnShell(event, "aws s3 rm " .. (event.isdir and "--recursive " or "") .. '"$1"',
				bucket .. "/" .. event.pathname)
		elseif event.isdir or event.etype == "Attrib" then
			inlet.discardEvent(event)
		else
			spawn(event, "aws", "s3", "cp", event.sourcePathname, bucket .. "/" .. event.pathname)
		end
	end,

	collect = function(event, exitcode)
		if exitcode ~= 0 then
			log("Normal", "aws ended with ", exitcode, ", trying again")
			return "again"
		end
	end,
}
